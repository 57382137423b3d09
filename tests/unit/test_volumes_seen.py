"""What records, rules and people see of a machine's Cinder volumes: adoption, accounting, requests, hosts, views."""

from __future__ import annotations

from pathlib import Path

import pytest

from resizeflow.auto_confirm import queue_confirms
from resizeflow.chaos.cloud import Cloud
from resizeflow.connections import Connections
from resizeflow.doctor import Doctor
from resizeflow.drivers.simulator.cinder import CINDER
from resizeflow.errors import NoValidHost
from resizeflow.looks import Looks
from resizeflow.persistence.hosts import instance_consumer
from resizeflow.service import Submitted
from resizeflow.states import JobState
from tests.console import Console, everything
from tests.refused import by_hand
from tests.with_volumes import add_volume, booting_from_volume


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    return Cloud(memory_path, resize_confirm_window="0.001").build(running=False)


@pytest.fixture
def console(cloud: Cloud) -> Console:
    return Console(cloud.folder / "resizeflow.conf")


def held(cloud: Cloud, uuid: str) -> tuple[int, int, int]:
    """What a machine holds of its host."""
    with cloud.database.read() as tx:
        (row,) = (row for row in tx.hosts.allocations() if row.consumer == instance_consumer(uuid))
        return row.vcpus, row.memory_mb, row.disk_gb


def gigabytes(cloud: Cloud) -> tuple[int, int]:
    """What the project uses of its quota of local disk, and has reserved of it."""
    quota = next(quota for quota in cloud.inventory.quotas("default") if quota.resource == "gigabytes")
    return quota.in_use, quota.reserved


def attached(cloud: Cloud, volume_id: str) -> list[str]:
    """The ids of a volume's attachments at Cinder."""
    looks = Looks(cloud.connections, cloud.settings, cloud.clock)
    return [one.id for one in looks.volumes().attachments(None, volume_id)]


# --- adoption --------------------------------------------------------------------------------------------


def test_a_machine_is_adopted_with_its_volumes(cloud: Cloud, console: Console) -> None:
    uuid = cloud.world.create_guest("h1", "db", 1, 512, {"vda": 1, "vdb": 2}, running=False)
    data, logs = add_volume(cloud, uuid, "vdc", "iscsi", gib=5), add_volume(cloud, uuid, "vdd", "nfs", gib=7)
    shown = console.ask("instance", "adopt", "h1", "db")
    attachments = {volume["volume"]: volume.pop("attachment") for volume in shown["volumes"]}
    assert shown["volumes"] == [
        {"device": "vdc", "volume": data, "gb": 5},
        {"device": "vdd", "volume": logs, "gb": 7},
    ]
    assert attachments == {volume: attached(cloud, volume)[0] for volume in (data, logs)}
    assert shown["volume_backed"] is False
    assert [disk["role"] for disk in shown["disks"]] == ["root", "ephemeral"]
    assert shown["flavor"] == "adopted-1-512-1-2"
    told = console.type("instance", "show", "db").out
    assert f"device vdc, volume {data}, gb 5, attachment {attachments[data]}" in told


@pytest.mark.parametrize(("disks", "roles", "local_gb"), [({}, [], 0), ({"vdb": 3}, ["ephemeral"], 3)])
def test_a_machine_that_boots_from_a_volume(
    cloud: Cloud, console: Console, disks: dict[str, int], roles: list[str], local_gb: int
) -> None:
    before = gigabytes(cloud)
    uuid = booting_from_volume(cloud, disks=disks)
    shown = console.ask("instance", "adopt", "h1", "db")
    assert shown["volume_backed"] is True
    assert [disk["role"] for disk in shown["disks"]] == roles
    assert shown["flavor"] == f"adopted-1-512-0-{local_gb}"
    assert [(volume["device"], volume["gb"]) for volume in shown["volumes"]] == [("vda", 20)]
    assert held(cloud, uuid) == (1, 512, local_gb)
    assert gigabytes(cloud) == (before[0] + local_gb, 0)
    assert console.type("instance", "remove", "db").code == 0
    assert gigabytes(cloud) == before


def test_a_volume_after_the_root_disk_is_no_root_disk(cloud: Cloud) -> None:
    uuid = cloud.world.create_guest("h1", "db", 1, 512, {"vda": 1}, running=False)
    add_volume(cloud, uuid, "vdb")
    assert not cloud.inventory.adopt("h1", "db").volume_backed


@pytest.mark.slow
def test_a_machine_without_volumes_never_needs_cinder(cloud: Cloud) -> None:
    cloud.world.set_up(CINDER, False)
    cloud.world.create_guest("h1", "db", 1, 512, {"vda": 1}, running=False)
    cloud.inventory.adopt("h1", "db")
    cloud.service.plan("db", "big")
    assert cloud.run(cloud.service.resize("db", "big", host="h2")) is JobState.DONE
    assert cloud.run(cloud.service.revert("db")) is JobState.DONE


# --- accounting ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("host", ["h1", "h2"])
@pytest.mark.parametrize("decision", ["confirm", "revert"])
def test_the_flavors_root_size_does_not_apply(cloud: Cloud, host: str, decision: str) -> None:
    uuid = booting_from_volume(cloud, disks={"vdb": 3})
    cloud.inventory.adopt("h1", "db")
    cloud.inventory.create_flavor("wide", vcpus=2, memory_mb=512, root_gb=80, ephemeral_gb=4)
    local = gigabytes(cloud)[0]
    # It needs one GiB more than it has, of its ephemeral disk: no quota of 80 more keeps it out.
    cloud.inventory.set_quota("default", {"gigabytes": local + 1})
    job = cloud.service.resize("db", "wide", host=host)
    assert gigabytes(cloud) == (local, 1)
    assert cloud.inventory.sync_quotas(dry_run=True) == []
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    assert gigabytes(cloud) == (local + 1, 0)
    assert held(cloud, uuid)[2] == 4
    sound(cloud)
    decided = cloud.service.confirm("db") if decision == "confirm" else cloud.service.revert("db")
    assert cloud.run(decided) is JobState.DONE, cloud.story(decided)
    kept = 4 if decision == "confirm" else 3
    assert (gigabytes(cloud), held(cloud, uuid)[2]) == ((local - 3 + kept, 0), kept)
    sound(cloud)


def sound(cloud: Cloud) -> None:
    """The books are what machines and migrations add up to, and all else is as the doctor expects it."""
    assert cloud.inventory.sync_quotas(dry_run=True) == []
    assert Doctor(cloud.database, cloud.settings, connections=cloud.connections).examine().breaches == ()


@pytest.mark.slow
def test_it_may_lose_the_flavors_root_disk(cloud: Cloud) -> None:
    booting_from_volume(cloud)
    cloud.inventory.adopt("h1", "db")
    for name, root_gb in (("wide", 80), ("flat", 0)):
        cloud.inventory.create_flavor(name, vcpus=2, memory_mb=512, root_gb=root_gb)
        job = cloud.service.resize("db", name, host="h2" if root_gb else "h1")
        assert cloud.run(job) is JobState.DONE, cloud.story(job)
        confirm = cloud.service.confirm("db")
        assert cloud.run(confirm) is JobState.DONE, cloud.story(confirm)


@pytest.mark.slow
def test_a_debt_holds_no_root_disk(cloud: Cloud) -> None:
    booting_from_volume(cloud, disks={"vdb": 3})
    cloud.inventory.adopt("h1", "db")
    cloud.inventory.create_flavor("wide", vcpus=1, memory_mb=512, root_gb=80, ephemeral_gb=3)
    job = cloud.service.resize("db", "wide", host="h2")
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    cloud.world.set_up("h1", False)
    confirm = cloud.service.confirm("db")
    assert cloud.run(confirm) is JobState.DONE, cloud.story(confirm)
    with cloud.database.read() as tx:
        owed = [row.disk_gb for row in tx.hosts.allocations() if row.consumer.startswith("debt:")]
    assert owed == [3]


# --- requests --------------------------------------------------------------------------------------------


def test_a_plan_tells_what_becomes_of_volumes(cloud: Cloud, console: Console) -> None:
    uuid = booting_from_volume(cloud)
    data = add_volume(cloud, uuid, "vdb", gib=5)
    cloud.inventory.adopt("h1", "db")
    plan = console.ask("resize", "db", "--flavor", "big", "--host", "h2", "--dry-run")
    assert plan["volume_backed"] is True
    assert plan["volumes"][1] == {"device": "vdb", "id": data, "size_gb": 5, "bytes_to_move": 0, "way": "reattached"}
    assert (plan["disks"], plan["bytes_to_move"]) == ([], 0)
    assert any(check.startswith("volumes: ") for check in plan["checks"])
    told = console.type("resize", "db", "--flavor", "big", "--host", "h2", "--dry-run").out
    assert f"vdb (volume)  5 GiB   reattached, nothing to move: {data}" in told
    assert "root disk       a volume" in told


def test_the_downtime_of_a_machine_that_has_only_volumes_is_without_a_copy(cloud: Cloud) -> None:
    booting_from_volume(cloud, running=True)
    cloud.inventory.adopt("h1", "db")
    assert "no copy: its disks are volumes" in cloud.service.plan("db", "big", host="h2").downtime


def test_swap_is_added_beside_a_volume(cloud: Cloud) -> None:
    booting_from_volume(cloud)
    cloud.inventory.adopt("h1", "db")
    cloud.inventory.create_flavor("swapping", vcpus=1, memory_mb=512, root_gb=0, swap_mb=64)
    (disk,) = cloud.service.plan("db", "swapping", host="h2").disks
    assert (disk.device, disk.role, disk.way) == ("vdb", "swap", "made anew")


def test_a_migration_shows_its_attachments(cloud: Cloud, console: Console) -> None:
    booting_from_volume(cloud)
    cloud.inventory.adopt("h1", "db")
    job = cloud.service.resize("db", "big", host="h2")
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    (shown,) = console.ask("migration", "show", job.migration_id)["volumes"]
    assert set(attached(cloud, shown["volume"])) == {shown["destination"], shown["return"]}
    assert (shown["onward"], shown["detached"]) == (None, False)
    told = console.type("migration", "show", job.migration_id).out
    assert f"vda: volume {shown['volume']}" in told
    for kind in ("source", "destination", "return"):
        assert f"  {kind:<11}  {shown[kind]}" in told
    assert "onward" not in told


# --- deciding --------------------------------------------------------------------------------------------


@pytest.fixture
def resized(cloud: Cloud) -> Submitted:
    """A machine with a volume that waits for its decision."""
    add_volume(cloud, cloud.uuid)
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run(job) is JobState.DONE, cloud.story(job)
    return job


@pytest.mark.slow
@pytest.mark.parametrize("words", ["confirm web", "revert web", "instance remove web"])
def test_who_decides_is_told_that_cinder_is_away(
    cloud: Cloud, console: Console, resized: Submitted, words: str
) -> None:
    before = everything(cloud)
    cloud.world.set_up(CINDER, False)
    console.type(*words.split()).refused(4, "it has volumes, and Cinder does not answer")
    assert everything(cloud) == before
    cloud.world.set_up(CINDER, True)
    assert console.type(*words.split()).code == 0


@pytest.mark.slow
def test_who_decides_is_told_of_a_volume_that_is_not_as_it_should_be(
    cloud: Cloud, console: Console, resized: Submitted
) -> None:
    before = everything(cloud)
    by_hand("UPDATE cinder_volumes SET status = 'error'")(cloud)
    for words in ("confirm", "revert"):
        console.type(words, "web").refused(4, "(vdb of web) is error, not in-use")
    assert everything(cloud) == before


@pytest.mark.slow
def test_a_machine_whose_cinder_is_away_is_not_confirmed_by_itself(cloud: Cloud, resized: Submitted) -> None:
    cloud.world.set_up(CINDER, False)
    looks = Looks(Connections(), cloud.settings, cloud.clock)
    assert queue_confirms(cloud.database, looks, cloud.settings) == 0
    cloud.world.set_up(CINDER, True)
    assert queue_confirms(cloud.database, looks, cloud.settings) == 1


# --- hosts -----------------------------------------------------------------------------------------------


def test_a_host_gets_the_secret_that_it_lacks_from_the_source(cloud: Cloud) -> None:
    add_volume(cloud, cloud.uuid)
    assert cloud.service.plan("web", "big", host="h2").destination == "h2"


def test_a_host_that_cannot_get_the_secret_is_unfit(cloud: Cloud) -> None:
    add_volume(cloud, cloud.uuid)
    by_hand("UPDATE secrets SET value = NULL")(cloud)
    with pytest.raises(NoValidHost, match=r"h2: it has no libvirt secret 457eb676-.*, and h1's cannot be read: define"):
        cloud.service.plan("web", "big", host="h2")
    assert cloud.service.plan("web", "big", host="h1").destination == "h1"
    by_hand("INSERT INTO secrets SELECT 'h2', uuid, kind, NULL, x'00' FROM secrets")(cloud)
    assert cloud.service.plan("web", "big", host="h2").destination == "h2"


@pytest.mark.parametrize("kind", ["iscsi", "nfs"])
def test_other_volumes_need_no_secret_of_the_source(cloud: Cloud, kind: str) -> None:
    add_volume(cloud, cloud.uuid, kind=kind)
    cloud.world.fail("h1", "secret_value", "private", times=9)
    assert cloud.service.plan("web", "big", host="h2").destination == "h2"


def test_volumes_need_no_room_in_a_pool(cloud: Cloud) -> None:
    booting_from_volume(cloud)
    cloud.inventory.adopt("h1", "db")
    cloud.world.set_free_bytes("h2", 65 * 2**20)
    assert cloud.service.plan("db", "big", host="h2").destination == "h2"
    with cloud.database.write() as tx:
        tx.hosts.lock(tx.hosts.get("h2").id)[0].disk_gb = 0
    assert cloud.service.plan("db", "big", host="h2").destination == "h2"
