"""A Cinder driver of iSCSI volumes in sparse files, which needs no device mapper.

What it does with its targets is what Cinder's LVM driver does (cinder/volume/drivers/lvm.py): all attachments of a
volume share one target and its CHAP credentials; the target is removed with the last attachment, blank ones counted.
"""

import os
from pathlib import Path
from typing import Any

from admitting_targets import AdmittingTargets  # type: ignore[import-not-found]
from cinder import interface  # type: ignore[import-not-found]
from cinder.volume import driver  # type: ignore[import-not-found]
from oslo_config import cfg

OPTIONS = [cfg.StrOpt("file_iscsi_folder", help="Where the volumes are.")]
GIB = 1 << 30


@interface.volumedriver
class FileIscsiDriver(driver.ISCSIDriver):
    """One sparse file and one target for each volume."""

    VERSION = "1.0"
    CI_WIKI_NAME = "none"

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.configuration.append_config_values(OPTIONS)
        self._targets = AdmittingTargets(configuration=self.configuration)

    def check_for_setup_error(self) -> None:
        """There is nothing that could be wrong."""

    def create_volume(self, volume: Any) -> None:
        with self._path(volume).open("wb") as file:
            file.truncate(volume.size * GIB)

    def delete_volume(self, volume: Any) -> None:
        self._path(volume).unlink(missing_ok=True)

    def extend_volume(self, volume: Any, new_size: int) -> None:
        os.truncate(self._path(volume), new_size * GIB)
        self._targets.extend_target(volume)

    def create_export(self, context: Any, volume: Any, connector: Any) -> dict[str, str]:  # noqa: ARG002
        made = self._targets.create_export(context, volume, str(self._path(volume)))
        return {"provider_location": made["location"], "provider_auth": made["auth"]}

    def ensure_export(self, context: Any, volume: Any) -> None:
        self._targets.ensure_export(context, volume, str(self._path(volume)))

    def remove_export(self, context: Any, volume: Any) -> None:
        self._targets.remove_export(context, volume)

    def initialize_connection(self, volume: Any, connector: Any) -> Any:
        return self._targets.initialize_connection(volume, connector)

    def validate_connector(self, connector: Any) -> Any:
        return self._targets.validate_connector(connector)

    def terminate_connection(self, volume: Any, connector: Any, **named: Any) -> bool:
        """Whether somebody else needs the target: then Cinder keeps it."""
        self._targets.terminate_connection(volume, connector, **named)
        return len(volume.volume_attachment) > 1

    def _update_volume_stats(self) -> None:
        room = os.statvfs(self.configuration.file_iscsi_folder)
        self._stats = {
            "volume_backend_name": self.configuration.volume_backend_name,
            "vendor_name": "resizeflow",
            "driver_version": self.VERSION,
            "storage_protocol": "iSCSI",
            "total_capacity_gb": room.f_blocks * room.f_frsize // GIB,
            "free_capacity_gb": room.f_bavail * room.f_frsize // GIB,
            "reserved_percentage": 0,
            "multiattach": True,
            "thin_provisioning_support": True,
            "online_extend_support": True,
        }

    def _path(self, volume: Any) -> Path:
        return Path(self.configuration.file_iscsi_folder, volume.name)
