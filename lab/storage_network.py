"""Where a lab's storage is reached: an address at the switch that also this machine's own network knows.

Hosts reach it over their cables, as they reach each other. A worker runs on the machine itself, which otherwise has no
way into a lab: one virtual cable leads from there to the switch, for this one address. Labs have an address each,
because the machine has to tell them apart.
"""

from pathlib import Path

from lab.network import BRIDGE, NETWORK
from lab.paths import LabPaths
from lab.system import LabError, run

MACHINE_ADDRESS = f"{NETWORK}.2"
"""The machine's own end of every such cable."""
NUMBERS = (*range(3, 11), *range(91, 100))
"""Neither hosts nor guests have these."""
CABLE = "machine"


def build(paths: LabPaths, note: Path) -> str:
    """Make or repair the way to the lab's storage; its address, which `note` keeps for the next time."""
    address = note.read_text().strip() if note.exists() else None
    at_switch = ["ip", "-n", paths.switch_netns]
    cable = _has_cable(paths)
    if address is None and cable:
        run([*at_switch, "link", "delete", CABLE])  # whoever laid it was killed before it could say which it is
    if address is None or not cable:
        address = _plug_in(paths, address)
        note.write_text(f"{address}\n")
    machine_end = _machine_end(address)
    run(["ip", "address", "replace", f"{MACHINE_ADDRESS}/32", "dev", machine_end])
    run(["ip", "link", "set", machine_end, "up"])
    run(["ip", "route", "replace", f"{address}/32", "dev", machine_end, "src", MACHINE_ADDRESS])
    run([*at_switch, "address", "replace", f"{address}/24", "dev", BRIDGE])
    run([*at_switch, "link", "set", CABLE, "up"])
    run([*at_switch, "route", "replace", f"{MACHINE_ADDRESS}/32", "dev", CABLE])
    return address


def remove(paths: LabPaths) -> None:
    """Take the cable away. It would go with the lab's network too, but some time later."""
    if _has_cable(paths):
        run(["ip", "-n", paths.switch_netns, "link", "delete", CABLE])


def _plug_in(paths: LabPaths, wanted: str | None) -> str:
    """Lay the cable; its name on the machine is taken by whoever has the address."""
    for address in [wanted] if wanted else [f"{NETWORK}.{number}" for number in NUMBERS]:
        add = ["ip", "link", "add", _machine_end(address), "type", "veth", "peer", "name", CABLE]
        try:
            run([*add, "netns", paths.switch_netns])
        except LabError as trouble:
            if "File exists" not in str(trouble):
                raise
            continue
        return address
    raise LabError(f"lab '{paths.name}' gets no address for its storage: other labs have {wanted or 'all of them'}")


def _has_cable(paths: LabPaths) -> bool:
    try:
        run(["ip", "-n", paths.switch_netns, "link", "show", CABLE])
    except LabError:
        return False
    return True


def _machine_end(address: str) -> str:
    return f"rflab-{address.rpartition('.')[2]}"
