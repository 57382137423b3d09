"""VLANs move with the machine: on simulated bridges that filter them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from resizeflow.chaos.child import KILLED
from resizeflow.chaos.cloud import Cloud
from resizeflow.doctor import Doctor
from resizeflow.doctor.report import Report
from resizeflow.drivers import connect, definition
from resizeflow.drivers.simulator import guests
from resizeflow.errors import NoValidHost, RuleError
from resizeflow.persistence.models import Binding, Instance, Port
from resizeflow.service import Submitted
from resizeflow.states import JobState, MigrationStatus
from resizeflow.worker import Worker
from tests.console import Console
from tests.spread import spread

VLAN = 10
ADDED = "52:54:00:aa:bb:cc"
NOWHERE = "no-such-program h1"


@pytest.fixture
def cloud(memory_path: Path) -> Cloud:
    return with_vlans(Cloud(memory_path).build())


def with_vlans(cloud: Cloud, *hosts: str) -> Cloud:
    """The machine `web`, as it is, is in a VLAN; so are its records, and the hosts have shells."""
    for host in hosts or ("h1", "h2"):
        cloud.world.filter_vlans(host)
        cloud.inventory.set_host(host, shell=cloud.world.uri(host))
    cloud.world.place_in_vlan("h1", cloud.uuid, VLAN)
    cloud.service.remove("web")
    cloud.inventory.adopt("h1", "web", vlans={mac_of(cloud): VLAN})
    return cloud


def mac_of(cloud: Cloud, uuid: str | None = None) -> str:
    uuid = uuid or cloud.uuid
    return ":".join(("52:54:00", uuid[0:2], uuid[2:4], uuid[4:6]))


def carried(cloud: Cloud, host: str) -> list[int]:
    found: list[int] = cloud.world.vlans(host)["uplinks"]["br0"]
    return found


def taps(cloud: Cloud, host: str) -> list[int | None]:
    return list(cloud.world.vlans(host)["taps"].values())


def done(cloud: Cloud, job: Submitted) -> None:
    assert cloud.run(job, tries=3) is JobState.DONE, cloud.story(job)


def is_at(cloud: Cloud, host: str, *, undecided: bool = False) -> None:
    """The machine runs in its VLAN on a host; the other has the VLAN only as long as there may be a way back."""
    other = "h1" if host == "h2" else "h2"
    assert (carried(cloud, host), taps(cloud, host)) == ([VLAN], [VLAN])
    assert (carried(cloud, other), taps(cloud, other)) == ([VLAN] if undecided else [], [])


# --- moves -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_resize_and_confirm(cloud: Cloud) -> None:
    done(cloud, cloud.service.resize("web", "big", host="h2"))
    is_at(cloud, "h2", undecided=True)
    done(cloud, cloud.service.confirm("web"))
    is_at(cloud, "h2")


def test_resize_and_revert(cloud: Cloud) -> None:
    done(cloud, cloud.service.resize("web", "big", host="h2"))
    done(cloud, cloud.service.revert("web"))
    is_at(cloud, "h1")


@pytest.mark.slow
def test_on_the_same_host(cloud: Cloud) -> None:
    done(cloud, cloud.service.resize("web", "big", host="h1"))
    done(cloud, cloud.service.confirm("web"))
    is_at(cloud, "h1")


def test_a_stopped_machine(memory_path: Path) -> None:
    cloud = with_vlans(Cloud(memory_path).build(running=False))
    done(cloud, cloud.service.resize("web", "big", host="h2"))
    done(cloud, cloud.service.confirm("web"))
    assert (carried(cloud, "h1"), carried(cloud, "h2")) == ([], [VLAN])


@pytest.mark.slow
def test_a_start_that_is_refused_is_rolled_back(cloud: Cloud) -> None:
    cloud.world.fail("h2", "set_access_vlan", times=-1)
    job = cloud.service.resize("web", "big", host="h2")
    done(cloud, job)
    assert cloud.migration(job).status is MigrationStatus.ERROR
    is_at(cloud, "h1")


@pytest.mark.slow
@pytest.mark.parametrize("when", spread(["after", "before"], 2))
@pytest.mark.parametrize("point", ["BindPorts.carry_vlan#1", "StartDestination.set_access_vlan#1"])
@pytest.mark.parametrize("way", ["resume", "rollback"])
def test_killed_at_each_effect_of_a_resize(cloud: Cloud, point: str, when: str, way: str) -> None:
    job = cloud.service.resize("web", "big", host="h2")
    assert cloud.run_in_child(job, f"{point}.{when}") == KILLED, cloud.story(job)
    if way == "rollback":
        cloud.service.rollback(job.migration_id)
    done(cloud, job)
    is_at(cloud, "h1" if way == "rollback" else "h2", undecided=way == "resume")


@pytest.mark.slow
@pytest.mark.parametrize("when", spread(["after", "before"], 2))
@pytest.mark.parametrize(
    ("decision", "point"),
    [
        ("confirm", "RemoveSourceBindings.commit.unbound#1"),
        ("confirm", "RemoveSourceBindings.drop_vlan#1"),
        ("revert", "StartSource.set_access_vlan#1"),
        ("revert", "RemoveDestination.drop_vlan#1"),
    ],
)
def test_killed_at_each_effect_of_a_decision(cloud: Cloud, decision: str, point: str, when: str) -> None:
    done(cloud, cloud.service.resize("web", "big", host="h2"))
    job = getattr(cloud.service, decision)("web")
    assert cloud.run_in_child(job, f"{point}.{when}") == KILLED, cloud.story(job)
    done(cloud, job)
    is_at(cloud, "h2" if decision == "confirm" else "h1")


# --- NICs that come and go while a resize waits for its decision -------------------------------------------


def change(cloud: Cloud, host: str, edit: Callable[[str], str]) -> None:
    """Somebody changes the machine where it runs, and its definition."""
    with cloud.world._store.transaction() as db:
        guests._change(db, host, cloud.uuid, edit)


def test_a_nic_that_was_added_goes_back_with_its_vlan(cloud: Cloud) -> None:
    done(cloud, cloud.service.resize("web", "big", host="h2"))
    nic = f"<interface type='bridge'><mac address='{ADDED}'/><source bridge='br0'/></interface></devices>"
    change(cloud, "h2", lambda xml: xml.replace("</devices>", nic))
    bridges = connect(cloud.world.uri("h2"))
    bridges.open(5)
    bridges.call("carry_vlan", ("br0", 20), timeout=5)
    bridges.call("set_access_vlan", (f"tap{ADDED.replace(':', '')}", 20), timeout=5)
    done(cloud, cloud.service.revert("web"))
    assert (carried(cloud, "h1"), sorted(taps(cloud, "h1"), key=str)) == ([VLAN, 20], [VLAN, 20])
    assert carried(cloud, "h2") == []
    assert not examined(cloud).breaches


def test_a_nic_that_was_removed_leaves_nothing_at_the_source(cloud: Cloud) -> None:
    done(cloud, cloud.service.resize("web", "big", host="h2"))
    change(cloud, "h2", lambda xml: definition.without_nic(xml, mac_of(cloud)))
    done(cloud, cloud.service.confirm("web"))
    with Worker(cloud.database, cloud.settings, clock=cloud.clock) as worker:
        worker.drain()
    assert (carried(cloud, "h1"), carried(cloud, "h2")) == ([], [VLAN])  # at h2 it is who removed it who knows
    with cloud.database.read() as tx:
        assert not tx.debts.open()


# --- who needs a VLAN ------------------------------------------------------------------------------------


def test_a_vlan_that_another_machine_needs_stays(cloud: Cloud) -> None:
    other = cloud.world.create_guest("h1", "db", 1, 512, {"vda": 1}, running=False)
    cloud.inventory.adopt("h1", "db", vlans={mac_of(cloud, other): VLAN})
    done(cloud, cloud.service.resize("web", "big", host="h2"))
    done(cloud, cloud.service.confirm("web"))
    assert (carried(cloud, "h1"), carried(cloud, "h2")) == ([VLAN], [VLAN])
    done(cloud, cloud.service.migrate("db", host="h2"))
    done(cloud, cloud.service.confirm("db"))
    assert (carried(cloud, "h1"), carried(cloud, "h2")) == ([], [VLAN])


def test_a_vlan_that_somebody_elses_machine_is_in_stays(cloud: Cloud) -> None:
    other = cloud.world.create_guest("h1", "theirs", 1, 512, {"vda": 1})
    cloud.world.place_in_vlan("h1", other, VLAN)
    done(cloud, cloud.service.resize("web", "big", host="h2"))
    done(cloud, cloud.service.confirm("web"))
    assert (carried(cloud, "h1"), taps(cloud, "h1")) == ([VLAN], [VLAN])


def test_who_comes_while_a_vlan_is_taken_away_has_it(cloud: Cloud) -> None:
    """Its binding is written between the question who needs the VLAN and its end."""
    done(cloud, cloud.service.resize("web", "big", host="h2"))
    job = cloud.service.confirm("web")
    point = "RemoveSourceBindings.drop_vlan#1"
    assert cloud.run_in_child(job, f"{point}.after") == KILLED
    with cloud.database.write() as tx:
        web = tx.instances.get("web")
        source = tx.hosts.get("h1")
        other = Instance(
            id="0" * 36,
            name="other",
            project_id="default",
            host_id=source.id,
            flavor_id=web.flavor_id,
            vm_state=web.vm_state,
            created_at=tx.now(),
            ports=[
                Port(
                    mac="52:54:00:00:00:01",
                    bridge="br0",
                    vlan=VLAN,
                    bindings=[Binding(host_id=source.id, active=True)],
                )
            ],
        )
        tx.session.add(other)
    done(cloud, job)
    assert carried(cloud, "h1") == [VLAN]


# --- hosts that are away ---------------------------------------------------------------------------------


def test_a_source_that_is_away_at_confirm_is_a_debt(cloud: Cloud) -> None:
    done(cloud, cloud.service.resize("web", "big", host="h2"))
    cloud.world.set_up("h1", False)
    done(cloud, cloud.service.confirm("web"))
    with cloud.database.read() as tx:
        assert ("vlan", "br0/10") in [(debt.kind, debt.object) for debt in tx.debts.open()]
    cloud.world.set_up("h1", True)
    with Worker(cloud.database, cloud.settings, clock=cloud.clock) as worker:
        worker.drain()
    with cloud.database.read() as tx:
        assert not tx.debts.open()
    is_at(cloud, "h2")


@pytest.mark.slow
def test_a_shell_that_is_away_at_confirm_is_a_debt(cloud: Cloud) -> None:
    done(cloud, cloud.service.resize("web", "big", host="h2"))
    cloud.inventory.set_host("h1", shell=NOWHERE)
    job = cloud.service.confirm("web")
    done(cloud, job)
    with Worker(cloud.database, cloud.settings, clock=cloud.clock) as worker:
        worker.drain()
    with cloud.database.read() as tx:
        assert [(debt.kind, debt.object) for debt in tx.debts.open()] == [("vlan", "br0/10")]
    cloud.inventory.set_host("h1", shell=cloud.world.uri("h1"))
    with Worker(cloud.database, cloud.settings, clock=cloud.clock) as worker:
        worker.drain()
    is_at(cloud, "h2")


# --- the doctor ------------------------------------------------------------------------------------------


def examined(cloud: Cloud) -> Report:
    return Doctor(cloud.database, cloud.settings, connections=cloud.connections).examine()


def repaired(cloud: Cloud) -> None:
    Doctor(cloud.database, cloud.settings, connections=cloud.connections).repair("root")
    with Worker(cloud.database, cloud.settings, clock=cloud.clock) as worker:
        worker.drain()


@pytest.mark.slow
def test_a_machine_that_its_host_started_is_in_no_vlan(cloud: Cloud) -> None:
    """A host that boots knows nothing of VLANs; a worker puts the machine there, once it was moved by us before."""
    cloud.world.set_domain("h1", cloud.uuid, autostart=True)
    assert not examined(cloud).breaches
    cloud.world.crash("h1")
    cloud.world.set_up("h1", True)
    (breach,) = examined(cloud).breaches
    assert (breach.invariant, breach.found) == (4, f"its tap tap{mac_of(cloud).replace(':', '')} is in VLAN none")
    assert breach.repair is None
    assert "bridge vlan add" in breach.expected
    done(cloud, cloud.service.resize("web", "big", host="h2"))
    done(cloud, cloud.service.confirm("web"))
    assert not examined(cloud).breaches
    cloud.world.crash("h2")
    cloud.world.set_up("h2", True)
    (breach,) = examined(cloud).breaches
    assert breach.repair is not None
    repaired(cloud)
    is_at(cloud, "h2")
    assert not examined(cloud).breaches


@pytest.mark.slow
def test_an_uplink_that_does_not_bring_a_vlan(cloud: Cloud) -> None:
    done(cloud, cloud.service.resize("web", "big", host="h2"))
    done(cloud, cloud.service.confirm("web"))
    bridges = connect(cloud.world.uri("h2"))
    bridges.open(5)
    bridges.call("drop_vlan", ("br0", VLAN), timeout=5)
    (breach,) = examined(cloud).breaches
    assert (breach.invariant, breach.found) == (4, "uplink0 of bridge br0 does not bring VLAN 10")
    repaired(cloud)
    assert not examined(cloud).breaches


def test_bridges_that_do_not_answer(cloud: Cloud) -> None:
    cloud.inventory.set_host("h1", shell=NOWHERE)
    report = examined(cloud)
    assert list(report.silent) == ["bridges of host h1"]
    assert not report.breaches


# --- refusals --------------------------------------------------------------------------------------------


def test_destinations_that_cannot(memory_path: Path) -> None:
    cloud = with_vlans(Cloud(memory_path).build(), "h1")
    with pytest.raises(NoValidHost, match="h2: it has no shell to set VLANs with"):
        cloud.service.resize("web", "big", host="h2")
    cloud.inventory.set_host("h2", shell=cloud.world.uri("h2"))
    with pytest.raises(NoValidHost, match="does not filter VLANs"):
        cloud.service.resize("web", "big", host="h2")


def test_a_source_without_shell(cloud: Cloud) -> None:
    with cloud.database.write() as tx:
        tx.hosts.get("h1").shell = None
    with pytest.raises(NoValidHost, match=r"ports of web are in VLANs; its host h1: it has no shell"):
        cloud.service.resize("web", "big", host="h2")


# --- adoption --------------------------------------------------------------------------------------------


def test_the_vlan_of_a_running_machine_is_read(cloud: Cloud) -> None:
    cloud.service.remove("web")
    adopted = cloud.inventory.adopt("h1", "web")
    with cloud.database.read() as tx:
        assert [port.vlan for port in tx.instances.get(adopted.id).ports] == [VLAN]


def test_contradictions(cloud: Cloud) -> None:
    cloud.service.remove("web")
    mac = mac_of(cloud)
    with pytest.raises(RuleError, match=r"is in VLAN 10 on h1, not in VLAN 11\."):
        cloud.inventory.adopt("h1", "web", vlans={mac: 11})
    with pytest.raises(RuleError, match="none of its NICs'"):
        cloud.inventory.adopt("h1", "web", vlans={"52:54:00:00:00:99": 11})
    other = cloud.world.create_guest("h1", "db", 1, 512, {"vda": 1})
    with pytest.raises(RuleError, match="is in no VLAN on h1, not in VLAN 10"):
        cloud.inventory.adopt("h1", "db", vlans={mac_of(cloud, other): VLAN})


def test_a_vlan_where_none_can_be_set(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build()
    cloud.service.remove("web")
    with pytest.raises(RuleError, match="cannot be in a VLAN on h1: it has no shell"):
        cloud.inventory.adopt("h1", "web", vlans={mac_of(cloud): VLAN})
    cloud.inventory.set_host("h1", shell=cloud.world.uri("h1"))
    with pytest.raises(RuleError, match="does not filter VLANs"):
        cloud.inventory.adopt("h1", "web", vlans={mac_of(cloud): VLAN})
    adopted = cloud.inventory.adopt("h1", "web")
    with cloud.database.read() as tx:
        assert [port.vlan for port in tx.instances.get(adopted.id).ports] == [None]


# --- the command line ------------------------------------------------------------------------------------


def test_what_is_typed(cloud: Cloud) -> None:
    console = Console(cloud.folder / "resizeflow.conf")
    assert console.ask("host", "set", "h1", "--shell", "ssh root@h1")["shell"] == "ssh root@h1"
    assert console.ask("host", "show", "h1")["shell"] == "ssh root@h1"
    console.type("host", "set", "h1", "--shell", " ").refused(2, "The shell is empty", "ssh root@h1")
    console.type("host", "set", "h1", "--shell", "ssh 'h1").refused(2, "cannot be taken apart", "no closing quotation")
    console.type("host", "set", "h1", "--shell", cloud.world.uri("h1"))
    assert console.ask("instance", "show", "web")["ports"] == [
        {"mac": mac_of(cloud), "bridge": "br0", "vlan": VLAN, "port": None}
    ]
    console.type("instance", "remove", "web")
    for text in ("10", f"{mac_of(cloud)}=0", f"{mac_of(cloud)}=4095", "52:54:00=10"):
        answer = console.type("instance", "adopt", "h1", "web", "--vlan", text)
        assert (answer.code, f"'{text}' is no MAC=VID" in answer.err) == (2, True), answer
    adopted = console.ask("instance", "adopt", "h1", "web", "--vlan", f"{mac_of(cloud).upper()}={VLAN}")
    assert [port["vlan"] for port in adopted["ports"]] == [VLAN]
