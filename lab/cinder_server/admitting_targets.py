"""iSCSI targets that admit those initiators only to which Cinder has connected the volume.

Cinder's TgtAdm makes targets that admit everybody who knows the password, which is the same for all attachments. Disk
arrays, and Cinder's targets by LIO (cinder/volume/targets/lio.py), keep a list of initiators instead: who is on it can
log in, and who is taken off it is cut off, although others still use the target.
"""

from pathlib import Path
from typing import Any

from cinder.volume.targets.tgt import TgtAdm  # type: ignore[import-not-found]
from oslo_concurrency.processutils import execute

NOBODY = "192.0.2.1"
"""A target that names no address admits all. This one belongs to no machine (RFC 5737)."""
ALREADY = 22
"""How tgtadm ends if what it should do is done."""


class AdmittingTargets(TgtAdm):
    """One target for each volume, with a list of initiators that is kept in a file, as tgt-admin reads it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._lists = Path(self.volumes_dir).with_name("initiators")
        self._lists.mkdir(exist_ok=True)
        more = f"    initiator-address {NOBODY}\n    include {self._lists}/%(name)s\n</target>"
        self.VOLUME_CONF = TgtAdm.VOLUME_CONF.replace("</target>", more)

    def create_iscsi_target(self, name: str, *arguments: Any, **named: Any) -> Any:
        """Its list stays as it is: a target is made anew whenever its volume is connected."""
        (self._lists / name).touch()
        return super().create_iscsi_target(name, *arguments, **named)

    def remove_iscsi_target(self, tid: int, lun: int, vol_id: str, vol_name: str, **named: Any) -> None:
        """The list goes with it."""
        super().remove_iscsi_target(tid, lun, vol_id, vol_name, **named)
        (self._lists / self._name(vol_name)).unlink(missing_ok=True)

    def initialize_connection(self, volume: Any, connector: Any) -> Any:
        """The initiator can log in."""
        name = self._name(volume.name)
        self._write(name, self._admitted(name) | {connector["initiator"]})
        self._command(name, "--mode", "target", "--op", "bind", "--initiator-name", connector["initiator"])
        return super().initialize_connection(volume, connector)

    def terminate_connection(self, volume: Any, connector: Any, **_: Any) -> None:
        """The initiator can no longer log in, and where it is logged in that ends."""
        name = self._name(volume.name)
        self._write(name, self._admitted(name) - {connector["initiator"]})
        self._cut_off(name, connector["initiator"])

    def _do_tgt_update(self, name: str, force: bool = False) -> None:
        """By force a target is made anew that is in use, which tgt-admin cannot do to one with a list."""
        if force:
            for initiator in self._admitted(name):
                self._cut_off(name, initiator)
        super()._do_tgt_update(name, force)

    def _cut_off(self, name: str, initiator: str) -> None:
        self._command(name, "--mode", "target", "--op", "unbind", "--initiator-name", initiator)
        session = connection = ""
        for line in self._command(name, "--mode", "conn", "--op", "show").splitlines():
            word, _, value = line.strip().partition(": ")
            if word == "Session":
                session = value
            elif word == "Connection":
                connection = value
            elif word == "Initiator" and value == initiator:
                self._command(name, "--mode", "conn", "--op", "delete", "--sid", session, "--cid", connection)

    def _name(self, volume_name: str) -> str:
        return f"{self.iscsi_target_prefix}{volume_name}"

    def _admitted(self, name: str) -> set[str]:
        file = self._lists / name
        return {line.split()[1] for line in file.read_text().splitlines()} if file.exists() else set()

    def _write(self, name: str, initiators: set[str]) -> None:
        (self._lists / name).write_text("".join(f"initiator-name {one}\n" for one in sorted(initiators)))

    def _command(self, name: str, *words: str) -> str:
        """What tgtadm says; nothing if there is no such target."""
        if (number := self._get_target(name)) is None:
            return ""
        said, _ = execute("tgtadm", "--lld", "iscsi", "--tid", number, *words, check_exit_code=[0, ALREADY])
        return str(said)
