"""Makes the golden set of the present schema: worlds and state databases of jobs that died in flight.

    python -m tests.golden.make FOLDER

It runs each flow on the simulator, kills it at each task (the effect is there, its success is not saved) and at each
undone task of a rollback, and writes all that is left to FOLDER/REVISION.json.xz. A set that belongs to a release is
kept as it is: `tests/unit/test_golden.py` upgrades, resumes and rolls back every case of every set.
"""

from __future__ import annotations

import json
import lzma
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resizeflow.chaos.cloud import Cloud
from resizeflow.service import Submitted
from resizeflow.states import JobState

FLOWS = {
    "resize": ("resize", "h2", "ResizeDisks"),
    "resize-same-host": ("resize", "h1", "DefineDestination"),
    "confirm": ("confirm", "h2", None),
    "confirm-same-host": ("confirm", "h1", None),
    "revert": ("revert", "h2", "RestoreSource"),
}
"""What is asked for, where the resize goes, and the task after which a rollback is asked for."""
VOLUMES = ("rbd", "iscsi")
KILLED = -9
WORLD = (
    "settings",
    "storages",
    "places",
    "hosts",
    "volumes",
    "domains",
    "secrets",
    "deaf_guests",
    "transfers",
    "merges",
    "cinder",
    "cinder_volumes",
    "attachments",
)
PLACE = ("name", "up", "hung", "attempts_left")
"""Columns that were the hosts' own before there was a Cinder beside them."""


class Flow:
    """One flow at the moment its job is queued, run again and again from there in the same folder."""

    def __init__(self, name: str, folder: Path) -> None:
        operation, host, self.turn_at = FLOWS[name]
        self._run, self._queued = folder / "run", folder / "queued"
        self._run.mkdir(parents=True)
        cloud = Cloud(self._run).build(disks=("vda", "vdb"), volumes=VOLUMES)
        self.uuid = cloud.uuid
        self.job = cloud.service.resize("web", "big", host=host)
        if operation != "resize":
            if cloud.run(self.job) is not JobState.DONE:
                raise RuntimeError(cloud.story(self.job))
            self.job = cloud.service.confirm("web") if operation == "confirm" else cloud.service.revert("web")
        self._save(self._queued)

    def cases(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each moment by its name."""
        yield "queued", self._picture()
        for task in self._tasks(self._cloud(self._queued), ".SUCCESS.before"):
            self._kill(self._cloud(self._queued), f"{task}.SUCCESS.before")
            yield task, self._picture()
        if self.turn_at is None:
            return
        self._kill(self._cloud(self._queued), f"{self.turn_at}.SUCCESS.before")
        Cloud(self._run).service.rollback(self.job.migration_id)
        turned = self._queued.with_name("turned")
        self._save(turned)
        yield "rollback", self._picture()
        for task in self._tasks(self._cloud(turned), ".REVERTED.before"):
            self._kill(self._cloud(turned), f"{task}.REVERTED.before")
            yield f"rollback-{task}", self._picture()

    def _tasks(self, cloud: Cloud, point: str) -> list[str]:
        """The tasks that an undisturbed run passes, by the points that it writes down."""
        log = self._queued.with_name("points")
        log.unlink(missing_ok=True)
        if cloud.run_in_child(self.job, log=log) != 0:
            raise RuntimeError(cloud.story(self.job))
        names = (line.removesuffix(point) for line in log.read_text().split() if line.endswith(point))
        return [name for name in names if name != "flow"]

    def _kill(self, cloud: Cloud, point: str) -> None:
        if cloud.run_in_child(self.job, point) != KILLED:
            raise RuntimeError(f"{point} was not passed:\n{cloud.story(self.job)}")

    def _cloud(self, moment: Path) -> Cloud:
        shutil.rmtree(self._run)
        shutil.copytree(moment, self._run)
        cloud = Cloud(self._run)
        cloud.expire(self.job)
        cloud.database.engine.dispose()
        return cloud

    def _save(self, moment: Path) -> None:
        moment.mkdir()
        for name in ("state.sqlite", "world.sqlite"):
            with sqlite3.connect(self._run / name) as here, sqlite3.connect(moment / name) as there:
                here.backup(there)

    def _picture(self) -> dict[str, Any]:
        """All that is left: the state database as SQL, the world's tables as rows."""
        with sqlite3.connect(self._run / "state.sqlite") as state:
            sql = "\n".join(state.iterdump())
        with sqlite3.connect(self._run / "world.sqlite") as world:
            world.row_factory = sqlite3.Row
            tables = {name: [_plain(row) for row in world.execute(f"SELECT * FROM {name}")] for name in WORLD}  # noqa: S608
        return {"job": self.job.job_id, "migration": self.job.migration_id, "state": sql, "world": tables}


def _plain(row: sqlite3.Row) -> dict[str, Any]:
    """A row as JSON has it."""
    return {name: {"hex": value.hex()} if isinstance(value, bytes) else value for name, value in dict(row).items()}


def _rows(world: dict[str, list[dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a world, of any age, by the tables that they go into today."""
    for table, rows in world.items():
        for row in rows:
            if table == "hosts" and "up" in row:
                yield "places", {name: row[name] for name in PLACE if name in row}
                yield table, {name: value for name, value in row.items() if name == "name" or name not in PLACE}
            else:
                yield table, row


def restore(picture: dict[str, Any], folder: Path) -> tuple[Cloud, Submitted]:
    """A cloud as it was, its state database still of its old schema; hosts are found in the new folder."""
    with sqlite3.connect(folder / "state.sqlite") as state:
        state.executescript(picture["state"])
    cloud = Cloud(folder)
    cloud.world.create()
    with sqlite3.connect(cloud.world.path) as world:
        world.execute("DELETE FROM settings")
        for table, row in _rows(picture["world"]):
            columns = ", ".join(row)
            world.execute(
                f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(row))})",  # noqa: S608 - our names
                tuple(bytes.fromhex(value["hex"]) if isinstance(value, dict) else value for value in row.values()),
            )
    with sqlite3.connect(folder / "state.sqlite") as state:
        for (name,) in state.execute("SELECT name FROM hosts").fetchall():
            uri = cloud.world.uri(name)
            state.execute("UPDATE hosts SET uri = ?, peer_uri = ? WHERE name = ?", (uri, uri, name))
    return cloud, Submitted(picture["migration"], picture["job"])


def revision(picture: dict[str, Any]) -> str:
    """The schema's revision."""
    with sqlite3.connect(":memory:") as state:
        state.executescript(picture["state"])
        return str(state.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def main() -> None:
    """Writes the set."""
    target = Path(sys.argv[1])
    pictures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in FLOWS:
            for case, picture in Flow(name, Path(folder) / name).cases():
                pictures[f"{name}/{case}"] = picture
    file = target / f"{revision(next(iter(pictures.values())))}.json.xz"
    file.write_bytes(lzma.compress(json.dumps(pictures, sort_keys=True).encode(), preset=9))
    print(f"{file}: {len(pictures)} cases, {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
