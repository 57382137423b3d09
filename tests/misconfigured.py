"""A cloud with another section in its configuration, in which a resize is refused and changes nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping

from resizeflow.chaos.cloud import Cloud
from tests.console import Console, everything
from tests.openstack_stub import PASSWORD


def resize_is_refused(cloud: Cloud, section: str, options: Mapping[str, str], *words: str) -> None:
    """With these options in the section a resize is refused in these words, without a secret in them; records and
    hosts are as before."""
    conf = cloud.folder / "resizeflow.conf"
    lines = "".join(f"{name} = {value}\n" for name, value in options.items())
    text, replaced = re.subn(rf"(?<=\[{section}\]\n)(?:[^\[].*\n)*", lambda _: lines, conf.read_text())
    assert replaced == 1
    conf.write_text(text)
    before, world = everything(cloud), cloud.world.snapshot()
    answer = Console(conf).type("resize", "web", "--flavor", "big", "--host", "h2")
    answer.refused(4, *words)
    assert PASSWORD not in answer.err
    assert everything(cloud) == before
    assert cloud.world.snapshot() == world
