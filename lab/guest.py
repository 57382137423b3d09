"""A guest: made on a host, and then asked, wherever it runs, what it is."""

import json
import secrets
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab.attachment import Attached, VolumeSpec, attach, remove
from lab.domain import Disk, DiskSpec, GuestFacts, definition, disk_name
from lab.network import FIRST_GUEST, LAST_GUEST, NETWORK
from lab.paths import ROOT, check_guest_name
from lab.serial import Report, Session, last_record_in, reports_in, sessions_in
from lab.system import LabError, locked, wait_until

if TYPE_CHECKING:
    from lab.host import Host
    from lab.lab import Lab

__all__ = ["DiskSpec", "Guest", "VolumeSpec", "guest_names"]


class Guest:
    """A guest by its name: it may be made yet, and it may run on any host of the lab."""

    def __init__(self, lab: "Lab", name: str) -> None:
        check_guest_name(name)
        self.lab = lab
        self.name = name

    def __repr__(self) -> str:
        return f"Guest({self.lab.name}/{self.name})"

    @property
    def facts(self) -> GuestFacts:
        """What makes the guest itself."""
        try:
            return GuestFacts(**json.loads(self.file.read_text()))
        except FileNotFoundError:
            raise LabError(f"lab '{self.lab.name}' has no guest '{self.name}'") from None

    @property
    def uuid(self) -> str:
        """The domain's UUID."""
        return self.facts.uuid

    @property
    def ip(self) -> str:
        """The address it answers at."""
        return self.facts.ip

    @property
    def mac(self) -> str:
        """The MAC address of its one NIC."""
        return self.facts.mac

    @property
    def vnc_password(self) -> str:
        """The secret in its definition: it has to survive a move, and to be found nowhere else."""
        return self.facts.vnc_password

    def create(
        self,
        host: "Host",
        vcpus: int = 1,
        memory_mb: int = 256,
        disks: Sequence[DiskSpec] = (DiskSpec(),),
        *,
        volumes: Sequence[VolumeSpec] = (),
        start: bool = True,
        ip: str | None = None,
    ) -> "Guest":
        """Make its disks in the host's pool, its volumes in Cinder, define it there, and start it. Without disks its
        first volume is its first disk."""
        with locked(ROOT):
            if self.file.exists():
                raise LabError(f"lab '{self.lab.name}' already has a guest '{self.name}'")
            facts = self._new_facts(ip)
            self.file.write_text(json.dumps(asdict(facts)))
        try:
            made = [self._make_disk(host, number, spec) for number, spec in enumerate(disks)]
            attached = [self._make_volume(host, number, spec) for number, spec in enumerate(volumes)]
            xml = definition(
                facts, accelerator=self.lab.accelerator, image=self.lab.image,
                vcpus=vcpus, memory_mb=memory_mb, disks=made, volumes=attached,
            )  # fmt: skip
            host.virsh("define", "--validate", "/dev/stdin", stdin=xml)
            if start:
                self.start(host)
        except BaseException:
            self.delete()
            raise
        return self

    def delete(self) -> None:
        """Remove it from every host that answers: domain, disks, volumes, secrets, and the lab's note of it."""
        for host in self._hosts_up():
            with suppress(LabError):
                host.virsh("destroy", self.name)
            with suppress(LabError):
                host.virsh("undefine", self.name, "--managed-save", "--snapshots-metadata")
            for path in self.disks(host):
                path.unlink()
        if self.file.exists():
            for volume in self.facts.volumes:
                remove(self.lab.volumes, volume, self.uuid, self._hosts_up())
        self.file.unlink(missing_ok=True)

    def start(self, host: "Host") -> None:
        """Start it where it is defined."""
        host.virsh("start", self.name)

    def destroy(self, host: "Host") -> None:
        """Pull its plug."""
        host.virsh("destroy", self.name)

    def shutdown(self, host: "Host", timeout: float = 60) -> None:
        """Ask it to power off, by ACPI, and wait until it has."""
        host.virsh("shutdown", self.name, "--mode", "acpi")
        if not wait_until(lambda: self.state(host) == "shut off", timeout, interval=0.2):
            raise LabError(f"guest '{self.name}' did not power off within {timeout:.0f} s")

    def state(self, host: "Host") -> str | None:
        """The domain's state on a host, in virsh's words; None if it is not defined there."""
        for line in host.virsh("list", "--all").splitlines():
            _, name, state = line.split(maxsplit=2)
            if name == self.name:
                return state.strip()
        return None

    def states(self) -> dict[str, str]:
        """Host name → state, for every host that answers and knows the guest."""
        known = ((host.name, self.state(host)) for host in self._hosts_up())
        return {host: state for host, state in known if state is not None}

    def disks(self, host: "Host") -> list[Path]:
        """Its disks in a host's pool."""
        return list(host.pool_path.glob(f"{self.name}-vd?.*"))

    def ping(self, timeout: float = 10) -> bool:
        """Whether it answers ping from the lab's switch within the time."""
        return self.lab.ping(self.ip, timeout)

    def reports(self) -> list[Report]:
        """All its boot reports, with the name of the host it booted on, in the order of time."""
        found = [
            {**report, "host": host.name}
            for host in self.lab.hosts
            for report in reports_in(host.serial_log(self.name))
        ]
        return sorted(found, key=lambda report: report["time"])

    def sessions(self) -> list[Session]:
        """All its boots with what it acknowledged in each, in the order of time."""
        found = [session for host in self.lab.hosts for session in sessions_in(host.serial_log(self.name))]
        return sorted(found, key=lambda session: session.report["time"])

    def wait_report(self, boots: int = 1, timeout: float = 120) -> Report:
        """Wait for the report of boot number `boots` or a later one, and return the newest report."""
        deadline = time.monotonic() + timeout
        while True:
            reports = self.reports()
            if reports and reports[-1]["boots"] >= boots:
                return reports[-1]
            if time.monotonic() > deadline:
                seen = ", ".join(f"{report['boots']} on {report['host']}" for report in reports) or "none"
                raise LabError(f"guest '{self.name}' did not report boot {boots} within {timeout:.0f} s (seen: {seen})")
            time.sleep(0.2)

    def last_record(self, host: "Host") -> int:
        """The last record that it acknowledged on a host; 0 if none."""
        return last_record_in(host.serial_log(self.name))

    @property
    def file(self) -> Path:
        """The lab's note of it."""
        return self.lab.paths.guests / f"{self.name}.json"

    def _hosts_up(self) -> list["Host"]:
        return [host for host in self.lab.hosts if host.state() == "up"]

    def _new_facts(self, ip: str | None) -> GuestFacts:
        """Facts for a new guest, at a free address."""
        taken = {Guest(self.lab, name).ip for name in guest_names(self.lab)}
        free = (f"{NETWORK}.{number}" for number in range(FIRST_GUEST, LAST_GUEST + 1))
        address = ip or next((address for address in free if address not in taken), None)
        if address is None:
            raise LabError(f"lab '{self.lab.name}' has no free address for another guest")
        prefix, _, last = address.rpartition(".")
        if prefix != NETWORK or not last.isdigit() or not FIRST_GUEST <= int(last) <= LAST_GUEST:
            raise LabError(f"a guest's address is {NETWORK}.{FIRST_GUEST} to .{LAST_GUEST}, not '{address}'")
        if address in taken:
            raise LabError(f"{address} belongs to another guest of lab '{self.lab.name}'")
        mac = f"52:54:00:33:64:{int(last):02x}"
        return GuestFacts(self.name, str(uuid.uuid4()), address, mac, vnc_password=secrets.token_hex(4))

    def _make_disk(self, host: "Host", number: int, spec: DiskSpec) -> Disk:
        name = disk_name(self.name, number, spec.format)
        size = f"{spec.size_gb}G"
        host.virsh("vol-create-as", host.pool, name, size, "--format", spec.format, "--allocation", "0")
        return Disk(host.pool_path / name, spec.format)

    def _make_volume(self, host: "Host", number: int, spec: VolumeSpec) -> Attached:
        volume = spec.volume_id or self.lab.volumes.cinder.create_volume(
            spec.kind, spec.size_gb, f"{self.name}-{number}"
        )
        facts = self.facts
        self.file.write_text(json.dumps(asdict(replace(facts, volumes=[*facts.volumes, volume]))))
        return attach(self.lab.volumes, volume, facts.uuid, host)


def guest_names(lab: "Lab") -> list[str]:
    """The guests that were made in a lab."""
    return sorted(path.stem for path in lab.paths.guests.glob("*.json"))
