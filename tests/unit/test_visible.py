"""Names and errors that would command a terminal: on every way to one they are shown instead."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from resizeflow import cli
from resizeflow.chaos.cloud import Cloud
from resizeflow.commands.visible import visible
from resizeflow.drivers.simulator import ALWAYS
from tests.console import Console

HOSTILE = "\x1b[2J\x1b]0;title\x07\x9b31m\r\u202eevil\x1b[8m"
"""Clears the screen, names the window, colours, goes back, turns the direction of writing, conceals."""
NAME = "web\x9b2J\u202eevil"
"""XML has no escape character, but its brother of eight bits."""
COMMANDS = (
    ("migration", "list"),
    ("migration", "history"),
    ("migration", "history", "--events"),
    ("migration", "show"),
    ("migration", "watch"),
    ("audit", "log"),
    ("instance", "list"),
    ("resize", "--flavor", "medium", "--dry-run"),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cloud, str]]:
    """A cloud in which a resize of a machine with a hostile name failed with a hostile error."""
    folder = tmp_path_factory.mktemp("visible")
    cloud = Cloud(folder, max_attempts="1")
    cloud.world.create()
    cloud.make_database()
    for host in ("h1", "h2"):
        cloud.world.add_host(host, vcpus=8, memory_mb=16384, pool_gb=100)
        cloud.inventory.add_host(host, cloud.world.uri(host), peer_uri=cloud.world.uri(host))
    cloud.world.create_guest("h1", NAME, 1, 512, {"vda": 1})
    cloud.inventory.adopt("h1", NAME, project=f"shop{HOSTILE}")
    cloud.inventory.create_flavor("medium", vcpus=2, memory_mb=1024, root_gb=2)
    cloud.world.fail("h2", "start_paused", HOSTILE, times=ALWAYS)
    job = cloud.service.resize(NAME, "medium", host="h2")
    cloud.run(job)
    yield cloud, job.migration_id
    cloud.release()


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_nothing_commands_the_terminal(
    fleet: tuple[Cloud, str], words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud, migration_id = fleet
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    what = {"resize": [NAME], "migration": [migration_id][: words[1] != "list"]}.get(words[0], [])
    cli.main(["--config-file", str(cloud.folder / "resizeflow.conf"), *words, *what])
    shown = out.getvalue() + err.getvalue()
    assert "evil" in shown
    for bad in ("\x1b[2J", "\x1b]", "\x07", "\x9b", "\r", "\u202e", "\x1b[8m"):
        assert bad not in shown, repr(shown)


@pytest.mark.slow
def test_a_command_that_is_told_can_be_typed(memory_path: Path) -> None:
    cloud = Cloud(memory_path).build(running=False)
    cloud.world.create_guest("h1", "web; reboot", 1, 128, {"vda": 1})
    cloud.inventory.adopt("h1", "web; reboot")
    console = Console(memory_path / "resizeflow.conf")
    said = console.type("resize", "web; reboot", "--flavor", "big", "--host", "h1").out
    assert "`resizeflow confirm 'web; reboot'`, or go back with `resizeflow revert 'web; reboot'`" in said
    cloud.inventory.lock("web; reboot", True)
    console.type("migrate", "web; reboot").refused(4, "`resizeflow instance unlock 'web; reboot'`")


def test_what_is_piped_is_as_it_is(fleet: tuple[Cloud, str]) -> None:
    names = Console(fleet[0].folder / "resizeflow.conf").type("instance", "list", "-f", "value", "-c", "name").out
    assert names == f"{NAME}\n"


def test_colours_of_ours_and_lines_stay() -> None:
    assert visible("\x1b[31mred\x1b[0m\n\ta → b") == "\x1b[31mred\x1b[0m\n\ta → b"
    assert visible("\x1b[8m\x85") == "\\x1b[8m\\x85"
