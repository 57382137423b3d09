"""What breaks the invariant about Cinder's attachments is found on either side; what is safe is repaired, no more."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from resizeflow.chaos.cloud import Cloud
from resizeflow.drivers import definition
from resizeflow.drivers.simulator.cinder import CINDER
from resizeflow.drivers.simulator.faults import ALWAYS
from resizeflow.persistence.models import Volume
from tests.planted import breaches, by_hand, check_left_to_people, doctor, found, repair, sql, xml_of
from tests.planted_volumes import OTHER, attachments, cinder, reserved_by_nobody, undone, volume_of_web


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    return Cloud(memory_path).build(volumes=("rbd",))


def check_attached_again(cloud: Cloud, before: dict[str, Any]) -> None:
    """A worker has repaired it: one attachment, and the records name it."""
    [breach] = breaches(cloud)
    assert (breach.invariant, breach.subject) == volume_of_web(cloud)
    assert breach.repair is not None
    repair(cloud)
    assert found(cloud) == []
    [attachment] = attachments(cloud)
    assert (attachment.status, attachment.instance_id) == ("attached", cloud.uuid)
    with cloud.database.read() as tx:
        assert tx.session.scalars(sa.select(Volume.attachment_id)).all() == [attachment.id]
    after = cloud.state()
    assert after["world"] == before["world"]
    assert after["tables"] == before["tables"] | {"debts": after["tables"]["debts"]}


def test_a_volume_reserved_by_nobody_is_explained_and_attached_again(cloud: Cloud) -> None:
    undone(cloud)
    before = cloud.state()
    reserved_by_nobody(cloud)
    [breach] = breaches(cloud)
    assert "interrupted between the two writes" in breach.found
    check_attached_again(cloud, before)


def test_a_volume_reserved_by_nobody_of_a_machine_that_never_moved(cloud: Cloud) -> None:
    reserved_by_nobody(cloud)
    check_left_to_people(cloud, [volume_of_web(cloud)])
    [breach] = breaches(cloud)
    assert f"`cinder reset-state --state available --attach-status detached {cloud.volumes[0]}`" in breach.expected


def test_the_attachment_was_deleted_behind_our_back(cloud: Cloud) -> None:
    undone(cloud)
    before = cloud.state()
    cinder(cloud, "delete_attachment", attachments(cloud)[0].id)
    check_attached_again(cloud, before)


def test_only_a_blank_attachment_is_left(cloud: Cloud) -> None:
    undone(cloud)
    before = cloud.state()
    cinder(cloud, "create_attachment", cloud.volumes[0], cloud.uuid)
    [own] = [one for one in attachments(cloud) if one.attached]
    cinder(cloud, "delete_attachment", own.id)
    check_attached_again(cloud, before)


def test_a_volume_that_somebody_else_got_meanwhile_is_left_to_people(cloud: Cloud) -> None:
    undone(cloud)
    cinder(cloud, "delete_attachment", attachments(cloud)[0].id)
    cinder(cloud, "create_attachment", cloud.volumes[0], OTHER)
    check_left_to_people(cloud, [volume_of_web(cloud)])
    assert [one.instance_id for one in attachments(cloud)] == [OTHER]


def test_a_volume_that_cinder_does_not_know_is_left_to_people(cloud: Cloud) -> None:
    undone(cloud)
    xml = xml_of(cloud, "h1").replace(cloud.volumes[0], OTHER)
    by_hand(cloud, "h1", "define", xml)
    sql(cloud, sa.update(Volume).values(volume_id=OTHER))
    cinder(cloud, "delete_attachment", attachments(cloud)[0].id)
    check_left_to_people(cloud, [volume_of_web(cloud, OTHER)])


@pytest.mark.parametrize("moved", [True, False])
def test_a_blank_orphan(cloud: Cloud, moved: bool) -> None:
    if moved:
        undone(cloud)
    before = cloud.state()
    orphan = cinder(cloud, "create_attachment", cloud.volumes[0], cloud.uuid)
    here = (5, f"attachment {orphan} of web")
    if not moved:
        check_left_to_people(cloud, [here])
        assert f"`cinder attachment-delete {orphan}`" in breaches(cloud)[0].expected
        return
    assert found(cloud) == [here]
    doctor(cloud).repair("doctor, says test")
    # Nothing is touched but by a job, and what is recorded is known.
    report = doctor(cloud).examine()
    assert report.breaches == ()
    assert [(debt.subject, debt.settled) for debt in report.debts] == [
        (f"attachment {orphan} at Cinder", "a worker removes it when Cinder answers")
    ]
    assert len(attachments(cloud)) == 2
    repair(cloud)
    assert found(cloud) == []
    assert [one.attached for one in attachments(cloud)] == [True]
    after = cloud.state()
    assert after["world"] == before["world"]
    assert after["tables"] == before["tables"] | {"debts": after["tables"]["debts"]}


def test_a_connected_orphan_is_left_to_people(cloud: Cloud) -> None:
    undone(cloud)
    spare = cloud.world.create_cinder_volume("nfs")
    orphan = cinder(cloud, "create_attachment", spare, cloud.uuid)
    for method, args in (("update_attachment", ({"host": "h1"},)), ("complete_attachment", ())):
        cinder(cloud, method, orphan, *args)
        check_left_to_people(cloud, [(5, f"attachment {orphan} of web")])


def test_two_connected_attachments_are_left_to_people(cloud: Cloud) -> None:
    undone(cloud)
    second = cinder(cloud, "create_attachment", cloud.volumes[0], cloud.uuid)
    cinder(cloud, "complete_attachment", second)
    check_left_to_people(cloud, [volume_of_web(cloud)])
    assert len(attachments(cloud)) == 2


def test_an_attachment_that_is_not_completed_is_left_to_people(cloud: Cloud) -> None:
    undone(cloud)
    cinder(cloud, "update_attachment", attachments(cloud)[0].id, {"host": "h1"})
    check_left_to_people(cloud, [volume_of_web(cloud)])


def test_a_volume_attached_by_hand_is_recorded(cloud: Cloud) -> None:
    undone(cloud)
    spare = cloud.world.create_cinder_volume("nfs", 3)
    cloud.world.attach_volume("h1", cloud.uuid, spare, "vdp")
    assert found(cloud) == [volume_of_web(cloud, spare)]
    before = cloud.state()["world"]
    repair(cloud)
    assert found(cloud) == []
    assert cloud.state()["world"] == before
    [attachment] = attachments(cloud, spare)
    with cloud.database.read() as tx:
        rows = {row.volume_id: (row.device, row.size_gb, row.attachment_id) for row in tx.instances.get("web").volumes}
    assert rows[spare] == ("vdp", 3, attachment.id)


def test_a_volume_detached_by_hand_is_recorded_no_more(cloud: Cloud) -> None:
    undone(cloud)
    cloud.world.detach_volume("h1", cloud.uuid, cloud.volumes[0])
    assert found(cloud) == [volume_of_web(cloud)]
    before = cloud.state()["world"]
    repair(cloud)
    assert found(cloud) == []
    assert cloud.state()["world"] == before
    with cloud.database.read() as tx:
        assert tx.instances.get("web").volumes == []


def test_a_volume_that_is_attached_but_not_defined_is_left_to_people(cloud: Cloud) -> None:
    undone(cloud)
    xml = xml_of(cloud, "h1")
    [device] = [device for device, volume in definition.volumes(xml).items() if volume == cloud.volumes[0]]
    by_hand(cloud, "h1", "define", definition.without_disk(xml, device))
    check_left_to_people(cloud, [(5, f"attachment {attachments(cloud)[0].id} of web")])


def test_a_record_of_another_attachment_is_set_right(cloud: Cloud) -> None:
    undone(cloud)
    before = cloud.state()
    sql(cloud, sa.update(Volume).values(attachment_id=OTHER))
    check_attached_again(cloud, before)


def test_an_iscsi_volume_is_attached_again_for_the_name_that_the_machine_has(memory_path: Path) -> None:
    """The target admits who is named: the machine's definition is not changed, so that it goes on as it is."""
    cloud = Cloud(memory_path).build(volumes=("iscsi",))
    undone(cloud)
    cinder(cloud, "delete_attachment", attachments(cloud)[0].id)
    own = "iqn.2005-03.org.example:h1"
    initiator = f'<initiator><iqn name="{own}"/></initiator>'
    by_hand(cloud, "h1", "define", re.sub("<initiator>.*</initiator>", initiator, xml_of(cloud, "h1")))
    repair(cloud)
    assert found(cloud) == []
    with sqlite3.connect(cloud.world.path) as world:
        [(connector,)] = world.execute("SELECT connector FROM attachments").fetchall()
    world.close()
    assert (json.loads(connector)["host"], json.loads(connector)["initiator"]) == ("h1", own)


def test_a_volume_of_several_machines(cloud: Cloud) -> None:
    """A blank attachment of one of them makes the volume `reserved`, and lets no other machine in meanwhile."""
    undone(cloud)
    shared = cloud.world.create_cinder_volume("rbd", multiattach=True)
    cloud.world.attach_volume("h1", cloud.uuid, shared, "vdp")
    repair(cloud)
    assert found(cloud) == []
    others = cinder(cloud, "create_attachment", shared, OTHER)
    assert cinder(cloud, "cinder_volume", shared).status == "reserved"
    assert found(cloud) == []
    [own] = [one for one in attachments(cloud, shared) if one.instance_id == cloud.uuid]
    cinder(cloud, "delete_attachment", own.id)
    check_left_to_people(cloud, [volume_of_web(cloud, shared)])
    cinder(cloud, "complete_attachment", others)
    repair(cloud)
    assert found(cloud) == []
    assert sorted(one.instance_id or "" for one in attachments(cloud, shared)) == sorted([OTHER, cloud.uuid])
    assert all(one.attached for one in attachments(cloud, shared))


# --- Cinder away -----------------------------------------------------------------------------------------


def test_a_silent_cinder_is_no_breach_and_makes_the_report_incomplete(cloud: Cloud) -> None:
    cinder(cloud, "delete_attachment", attachments(cloud)[0].id)
    cloud.world.set_up(CINDER, False)
    report = doctor(cloud).examine()
    assert (report.breaches, list(report.silent), report.complete) == ((), ["Cinder"], False)
    cloud.world.set_up(CINDER, True)
    cloud.world.fail(CINDER, "attachments", "you are not allowed to", ALWAYS)
    report = doctor(cloud).examine()
    assert report.breaches == ()
    assert "you are not allowed to" in report.silent["Cinder"]


def test_without_a_cinder_machines_with_volumes_are_not_examined(memory_path: Path, cloud: Cloud) -> None:
    without = Cloud(memory_path, {})
    assert list(doctor(without).examine().silent) == ["Cinder"]
    sql(cloud, sa.delete(Volume))
    xml = xml_of(cloud, "h1")
    by_hand(cloud, "h1", "define", definition.without_disk(xml, next(iter(definition.volumes(xml)))))
    assert doctor(without).examine().complete


def test_records_are_held_against_the_definition_without_cinder(cloud: Cloud) -> None:
    sql(cloud, sa.update(Volume).values(volume_id=OTHER))
    cloud.world.set_up(CINDER, False)
    assert sorted(found(cloud)) == sorted([volume_of_web(cloud), volume_of_web(cloud, OTHER)])
