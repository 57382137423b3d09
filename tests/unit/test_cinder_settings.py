"""A Cinder that cannot be used as it is configured: a resize is refused with one sentence, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from resizeflow.chaos.cloud import Cloud
from tests.misconfigured import resize_is_refused
from tests.openstack_stub import (
    PROJECT,
    Answer,
    Stub,
    nobody,
    with_keystone,
    without_keystone,
)

ATTACHMENT = "0710c85f-0000-4000-8000-000000000001"
Options = Mapping[str, str]


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    """A machine with a volume, which was adopted while everything was right."""
    return Cloud(memory_path).build(volumes=("rbd",))


@pytest.fixture
def stub() -> Iterator[Stub]:
    """A Cinder and a Keystone."""
    with Stub() as stub:
        stub.is_cinder()
        stub.is_keystone(f"{stub.url}/v3")
        yield stub


def at_nobody(_stub: Stub) -> Options:
    return without_keystone(nobody())


def without_a_version(stub: Stub) -> Options:
    return {**without_keystone(stub.url), "endpoint": stub.url}


def at_something_else(stub: Stub) -> Options:
    stub.answer("GET /v3/", Answer(body={"version": {"id": "v3.14", "status": "stable"}}))
    return without_keystone(stub.url)


def of_another_project(stub: Stub) -> Options:
    return {**without_keystone(stub.url), "project_id": "3" * 32}


def too_old(stub: Stub) -> Options:
    stub.answer("GET /v3/", Answer(body={"versions": [{"id": "v3.0", "version": "3.27", "min_version": "3.0"}]}))
    return without_keystone(stub.url)


def without_a_right(stub: Stub) -> Options:
    stub.answer("POST /v3/auth/tokens", Answer(401, {"error": {"message": "no", "code": 401, "title": "Unauthorized"}}))
    return with_keystone(stub.url)


def in_another_region(stub: Stub) -> Options:
    return {**with_keystone(stub.url), "region_name": "two"}


def at_no_keystone(_stub: Stub) -> Options:
    return with_keystone(nobody())


def by_an_unknown_plugin(_stub: Stub) -> Options:
    return {"auth_type": "kerberoast"}


def without_a_password(stub: Stub) -> Options:
    return {"auth_type": "password", "auth_url": f"{stub.url}/v3"}


def without_cinder(_stub: Stub) -> Options:
    return {}


@pytest.mark.parametrize(
    ("configured", "words"),
    [
        (at_nobody, "Connection refused"),
        (without_a_version, "cannot be used: Not Found"),
        (at_something_else, "is something else, not Cinder"),
        (of_another_project, "Cinder's endpoint is wrong, or its project"),
        (too_old, "Cinder speaks microversions 3.0 to 3.27, resizeflow needs 3.44: upgrade Cinder"),
        (without_a_right, "does not accept the login: correct the credentials in section [cinder]"),
        (in_another_region, "has no such Cinder in its catalog: correct region_name"),
        (at_no_keystone, "Connection refused"),
        (by_an_unknown_plugin, "has auth_type kerberoast, which is not known: it can be"),
        (without_a_password, "cannot be used: password is a required attribute; correct section [cinder]"),
        (without_cinder, "no Cinder is configured"),
    ],
)
def test_it_is_refused(cloud: Cloud, stub: Stub, configured: Callable[[Stub], Options], words: str) -> None:
    resize_is_refused(cloud, "cinder", configured(stub), "it has volumes, and ", words)


def fibre_channel() -> dict[str, Any]:
    return {"driver_volume_type": "fibre_channel", "target_wwn": ["50014380242b9751"], "target_lun": 1}


def several_paths() -> dict[str, Any]:
    return {"driver_volume_type": "iscsi", "target_portals": ["198.51.100.3:3260", "198.51.100.4:3260"]}


def encrypted() -> dict[str, Any]:
    return {"driver_volume_type": "rbd", "encrypted": True}


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (
            fibre_channel,
            "it is connected by fibre_channel, which needs an agent on the host; QEMU opens rbd, iscsi, nfs",
        ),
        (several_paths, "it is connected by several iSCSI paths (multipath), which needs an agent on the host"),
        (encrypted, "it is encrypted"),
    ],
)
def test_a_volume_that_qemu_does_not_open_is_refused(
    cloud: Cloud, stub: Stub, info: Callable[[], dict[str, Any]], words: str
) -> None:
    (volume_id,) = cloud.volumes
    volume = {"id": volume_id, "name": "data", "status": "in-use", "size": 1, "multiattach": False, "encrypted": False}
    attachment: dict[str, Any] = {
        "id": ATTACHMENT,
        "volume_id": volume_id,
        "instance": cloud.uuid,
        "status": "attached",
    }
    attachment["connection_info"] = {**info(), "attachment_id": ATTACHMENT}
    stub.answer(f"GET /v3/{PROJECT}/volumes/{volume_id}", Answer(body={"volume": volume}))
    pages = Answer(body={"attachments": [attachment]}), Answer(body={"attachments": []})
    stub.answer(f"GET /v3/{PROJECT}/attachments/detail", *pages)
    stub.answer(f"GET /v3/{PROJECT}/attachments/{ATTACHMENT}", Answer(body={"attachment": attachment}))
    resize_is_refused(
        cloud, "cinder", without_keystone(stub.url), f"Volume {volume_id} (vdm of web) cannot be moved: ", words
    )
