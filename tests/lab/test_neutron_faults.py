"""What others do to a machine's ports and bindings at a real Neutron, and what its agents do when they die, while the
machine is resized and in between. The hosts are simulated.

In each case the resize ends resized or as before, or waits and says for what, and the doctor says what is wrong then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from lab.neutron import Neutron
from resizeflow.chaos.judge import broken_invariants
from resizeflow.drivers import definition
from resizeflow.errors import InvalidPort, NoValidHost
from resizeflow.states import Direction, JobState
from tests.lab.conftest import NeutronMaker, NeutronStageMaker
from tests.lab.ended import host_of
from tests.lab.neutron_cloud import PROFILE, NeutronCloud, NeutronStage, Row
from tests.lab.neutron_judge import wrong
from tests.lab.stage import DONE, TURNED_BACK, ask, go_on, paused_at

pytestmark = pytest.mark.lab

certify = pytest.mark.certify
PLUGGING = 3
"""Seconds for which ports are waited for."""
CREATE, ACTIVATE = "BindPorts.create_binding#1.checked", "MoveInstance.activate_binding#1.checked"
DONE_ANYWAY, BACK = "done", "back"


@pytest.fixture(scope="module")
def stage(make_neutron_stage: NeutronStageMaker) -> NeutronStage:
    """A machine with a port."""
    return make_neutron_stage(plugging=PLUGGING, act_timeout="8", look_timeout="8")


@pytest.fixture(scope="module")
def two_ports(make_neutron_stage: NeutronStageMaker) -> NeutronStage:
    """A machine with two ports."""
    return make_neutron_stage(2, plugging=PLUGGING, act_timeout="8", look_timeout="8")


@pytest.fixture(autouse=True)
def revived(neutron: Neutron) -> Iterator[None]:
    """Agents live again after each test: all clouds have the same."""
    yield
    for host in ("h1", "h2"):
        neutron.set_agent(host, alive=True)


def cases(*all_of_them: tuple[str, ...], each_run: tuple[str, ...]) -> list[object]:
    """All of them; all but those at a point or two only for certification."""
    return [
        pytest.param(*case, id="-".join(case), marks=[] if case[1] in each_run else certify) for case in all_of_them
    ]


# --- agents ----------------------------------------------------------------------------------------------


def test_a_host_that_neutron_does_not_know_is_no_destination(stage: NeutronStage) -> None:
    """Nor one whose agent it believes to be dead."""
    stage.at_rest.restore()
    stage.cloud.neutron.set_agent("h2", alive=False)
    with pytest.raises(NoValidHost, match="h2: Neutron's agent on it does not live"):
        ask(stage.cloud, "resize")
    with renamed_agent(stage.cloud), pytest.raises(NoValidHost, match=r"Neutron knows no agent on it: has it another"):
        ask(stage.cloud, "resize")


@pytest.mark.parametrize(
    ("operation", "point", "host", "words"),
    [
        ("resize", CREATE, "h2", "Neutron answered create_binding with 500"),
        pytest.param("resize", ACTIVATE, "h2", "was not plugged in on h2 within 3 s", marks=certify),
        ("resize", "StartDestination.RUNNING.after", "h2", "was not plugged in on h2 within 3 s"),
        pytest.param(
            "revert", "MoveInstanceBack.create_binding#1.checked", "h1", "Neutron answered create_binding with 500",
            marks=certify,
        ),
        pytest.param("revert", "StartSource.RUNNING.after", "h1", "was not plugged in on h1 within 3 s", marks=certify),
    ],
)  # fmt: skip
def test_an_agent_dies_where_the_machine_goes(
    stage: NeutronStage, operation: str, point: str, host: str, words: str
) -> None:
    """It is turned back, and says why."""
    cloud = stage.cloud
    worker = paused_at(cloud, stage.begin(operation), point)
    cloud.neutron.set_agent(host, alive=False)
    go_on(worker)
    assert words in (cloud.migration(stage.job).error or "")
    stage.check_turned_back()


def test_a_host_whose_name_neutron_has_forgotten_gets_no_binding(stage: NeutronStage) -> None:
    """500 with PortBindingError."""
    cloud = stage.cloud
    worker = paused_at(cloud, stage.begin("resize"), CREATE)
    with renamed_agent(cloud):
        go_on(worker)
    assert "on host h2 could not be created or updated" in (cloud.migration(stage.job).error or "")
    stage.check_turned_back()


@pytest.mark.parametrize(
    ("operation", "point", "back_to", "undone"),
    [
        ("resize", "StartDestination.RUNNING.after", "h1", "MoveInstance"),
        pytest.param("revert", "StartSource.RUNNING.after", "h2", "MoveInstanceBack", marks=certify),
    ],
)
def test_the_way_back_waits_for_the_agent_there(
    stage: NeutronStage, operation: str, point: str, back_to: str, undone: str
) -> None:
    """Neutron has forgotten how the port was plugged in, and binds it anew only if the agent lives."""
    cloud = stage.cloud
    worker = paused_at(cloud, stage.begin(operation), point)
    for host in ("h1", "h2"):
        cloud.neutron.set_agent(host, alive=False)
    go_on(worker)
    stage.check_waits(f"undoing {undone}: a binding of port {cloud.ports[0]} ")
    cloud.neutron.set_agent(back_to, alive=True)
    stage.check_turned_back()


@contextlib.contextmanager
def renamed_agent(cloud: NeutronCloud) -> Iterator[None]:
    """The agent on h2 has another name at Neutron."""
    with cloud.neutron_by_hand() as database:
        database.execute("UPDATE agents SET host = 'h2.example.org' WHERE host = 'h2'")
    try:
        yield
    finally:
        with cloud.neutron_by_hand() as database:
            database.execute("UPDATE agents SET host = 'h2' WHERE host = 'h2.example.org'")


# --- a binding that failed -------------------------------------------------------------------------------


def test_a_port_that_could_not_be_bound_is_refused(stage: NeutronStage) -> None:
    """Neutron says so by its vif_type only."""
    stage.at_rest.restore()
    fails_to_bind(stage.cloud, "h1")
    with pytest.raises(InvalidPort, match="Neutron could not bind it to h1: is the network there, and its agent alive"):
        ask(stage.cloud, "resize")


def test_a_port_that_fails_to_be_bound_to_the_destination_turns_back(stage: NeutronStage) -> None:
    """Somebody binds it there, while the agent is away."""
    cloud = stage.cloud
    worker = paused_at(cloud, stage.begin("resize"), "BindPorts.RUNNING.after")
    fails_to_bind(cloud, "h2")
    go_on(worker)
    assert f"Neutron cannot bind port {cloud.ports[0]} " in (cloud.migration(stage.job).error or "")
    stage.check_turned_back()


def fails_to_bind(cloud: NeutronCloud, host: str) -> None:
    """Somebody binds the port to a host whose agent is away. (When it is back, and the machine is there, it asks how to
    plug the port in, and Neutron binds it.)"""
    (port,) = cloud.ports
    cloud.client.update_port(port, binding_host_id="")
    cloud.neutron.set_agent(host, alive=False)
    cloud.client.update_port(port, binding_host_id=host)
    assert cloud.bindings(port)[0].vif_type == "binding_failed"


# --- bindings changed behind our back --------------------------------------------------------------------

CHANGES: dict[str, Callable[[NeutronCloud], None]] = {
    "h1-gone": lambda cloud: cloud.delete_binding("h1"),
    "h2-gone": lambda cloud: cloud.delete_binding("h2"),
    "h1-activated": lambda cloud: cloud.activate_binding("h1"),
    "h2-activated": lambda cloud: cloud.activate_binding("h2"),
}


@pytest.mark.parametrize(
    ("operation", "point", "change", "ends"),
    cases(
        ("resize", ACTIVATE, "h1-gone", BACK),
        ("resize", "PowerOffSource.RUNNING.after", "h2-gone", DONE_ANYWAY),
        ("resize", ACTIVATE, "h2-gone", BACK),
        ("resize", "DefineDestination.RUNNING.after", "h2-gone", BACK),
        ("resize", "StartDestination.RUNNING.after", "h2-gone", DONE_ANYWAY),
        ("resize", "PowerOffSource.RUNNING.after", "h2-activated", DONE_ANYWAY),
        ("resize", "DefineDestination.RUNNING.after", "h1-activated", BACK),
        ("resize", "StartDestination.RUNNING.after", "h1-activated", DONE_ANYWAY),
        ("confirm", "RemoveSourceBindings.RUNNING.after", "h1-activated", DONE_ANYWAY),
        ("confirm", "RemoveSourceBindings.delete_binding#1.checked", "h1-gone", DONE_ANYWAY),
        ("revert", "MoveInstanceBack.delete_binding#1.checked", "h1-gone", DONE_ANYWAY),
        ("revert", "MoveInstanceBack.activate_binding#1.checked", "h2-gone", BACK),
        ("revert", "RestoreSource.RUNNING.after", "h1-gone", BACK),
        ("revert", "RemoveDestination.delete_binding#1.checked", "h2-gone", DONE_ANYWAY),
        each_run=("StartDestination.RUNNING.after", "MoveInstanceBack.activate_binding#1.checked"),
    ),
)
def test_a_binding_is_changed_behind_our_back(
    stage: NeutronStage, operation: str, point: str, change: str, ends: str
) -> None:
    """What was to go is missed by nobody; what is needed is made anew, or the job turns back. Of a port that was bound
    to no host nobody knows the profile any more."""
    cloud = stage.cloud
    worker = paused_at(cloud, stage.begin(operation), point)
    CHANGES[change](cloud)
    go_on(worker)
    cloud.run(stage.job, tries=4)
    status = (DONE if ends == DONE_ANYWAY else TURNED_BACK)[operation]
    assert cloud.migration(stage.job).status is status, cloud.story(stage.job)
    assert [text for text in wrong(cloud, stage.job) if "profile='{}'" not in text] == [], cloud.story(stage.job)


@pytest.mark.parametrize(
    ("operation", "point"),
    [
        ("resize", "StartDestination.commit.pivot#1.after"),
        pytest.param("confirm", "RemoveSourceBindings.delete_binding#1.checked", marks=certify),
    ],
)
def test_a_port_whose_binding_is_deleted_last_is_told_by_the_doctor(
    stage: NeutronStage, operation: str, point: str
) -> None:
    """Nobody looks at it any more."""
    cloud = stage.cloud
    worker = paused_at(cloud, stage.begin(operation), point)
    cloud.delete_binding("h2")
    go_on(worker)
    assert cloud.migration(stage.job).status is DONE[operation], cloud.story(stage.job)
    (breach,) = broken_invariants(cloud)
    assert "bound to no host; expected: active binding to h2" in breach


# --- a port deleted behind our back ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "point", "ends"),
    cases(
        ("resize", "CaptureSource.RUNNING.after", BACK),
        ("resize", "BindPorts.create_binding#2.checked", BACK),
        ("resize", "PowerOffSource.RUNNING.after", BACK),
        ("resize", "MoveInstance.activate_binding#2.checked", BACK),
        ("resize", "DefineDestination.RUNNING.after", BACK),
        ("resize", "StartDestination.RUNNING.after", BACK),
        ("resize", "FinishResize.RUNNING.after", DONE_ANYWAY),
        ("confirm", "CheckDestination.RUNNING.after", BACK),
        ("confirm", "RemoveSourceBindings.delete_binding#2.checked", DONE_ANYWAY),
        ("revert", "CheckSource.RUNNING.after", BACK),
        ("revert", "MoveInstanceBack.RUNNING.after", BACK),
        ("revert", "RestoreSource.RUNNING.after", BACK),
        ("revert", "StartSource.RUNNING.after", BACK),
        ("revert", "RemoveDestination.RUNNING.after", DONE_ANYWAY),
        each_run=("MoveInstance.activate_binding#2.checked", "RemoveSourceBindings.delete_binding#2.checked"),
    ),
)
def test_a_port_is_deleted_behind_our_back(two_ports: NeutronStage, operation: str, point: str, ends: str) -> None:
    """The machine's other port is where the machine is, and the doctor tells of this one."""
    cloud = two_ports.cloud
    kept, deleted = cloud.ports
    worker = paused_at(cloud, two_ports.begin(operation), point)
    cloud.client.delete_port(deleted)
    go_on(worker)
    assert cloud.job(two_ports.job).state is JobState.DONE, cloud.story(two_ports.job)
    status = (DONE if ends == DONE_ANYWAY else TURNED_BACK)[operation]
    assert cloud.migration(two_ports.job).status is status, cloud.story(two_ports.job)
    host = host_of(cloud)
    assert cloud.world.running(cloud.uuid) == (host,)
    assert [row.host for row in cloud.bindings(kept) if row.status == "ACTIVE"] == [host]
    assert cloud.becomes(kept, "ACTIVE")
    (breach,) = broken_invariants(cloud)
    assert f"port {deleted} of vm: " in breach


# --- ports that come and go before the decision ----------------------------------------------------------


@pytest.mark.parametrize("decision", ["confirm", "revert"])
def test_what_is_attached_and_detached_before_the_decision_stays_so(
    make_neutron_cloud: NeutronMaker, decision: str
) -> None:
    cloud = make_neutron_cloud().build_machine(2)
    kept, detached = cloud.ports
    resize = ask(cloud, "resize")
    assert cloud.run(resize) is JobState.DONE, cloud.story(resize)
    attached = cloud.create_port("h2")
    nic = cloud.nic(attached)
    cloud.edit("h2", lambda xml: xml.replace("</devices>", f"{nic}</devices>"))
    cloud.take_port(detached)
    mac = cloud.client.get_port(detached).mac_address
    cloud.edit("h2", lambda xml: definition.without_nic(xml, mac))
    assert [*broken_invariants(cloud)] == []
    cloud.ports = (kept, attached)
    job = ask(cloud, decision)
    assert cloud.run(job, tries=4) is JobState.DONE, cloud.story(job)
    assert wrong(cloud, job) == []
    assert cloud.client.get_port(detached).device_id == ""


# --- what Neutron itself leaves --------------------------------------------------------------------------


@certify
def test_a_neutron_that_died_while_it_deleted_a_binding_makes_no_other_there(stage: NeutronStage) -> None:
    """It deletes a binding, and in another transaction how that was bound. If it dies in between, every create of a
    binding to that host fails, until somebody deletes the rest by hand: the resize to it is turned back."""
    cloud = stage.cloud
    stage.at_rest.restore()
    with cloud.neutron_by_hand() as database:
        row = (cloud.ports[0], "h2", 0, "openvswitch")
        segment = "(SELECT segment_id FROM ml2_port_binding_levels WHERE port_id = ?)"
        database.execute(f"INSERT INTO ml2_port_binding_levels VALUES (?, ?, ?, ?, {segment})", (*row, row[0]))  # noqa: S608
    stage.ask("resize")
    cloud.run(stage.job)
    assert cloud.job(stage.job).direction is Direction.BACK, cloud.story(stage.job)
    cloud.neutron.kill()  # it tries the creates again and again, and would succeed
    with cloud.neutron_by_hand() as database:
        database.execute("DELETE FROM ml2_port_binding_levels WHERE host = 'h2'")
    cloud.neutron.start()
    stage.check_turned_back()
    assert cloud.bindings(cloud.ports[0]) == (Row("h1", "ACTIVE", "ovs", str(PROFILE)),)
