"""What a flavor may ask of a host beyond its size (`extra_specs`), in Nova's words."""

from __future__ import annotations

import re

from resizeflow.errors import UsageError

TRAIT = re.compile(r"[A-Z0-9_]{1,255}")
"""A trait's name, as in Placement."""


def well_formed(key: str, value: str) -> None:
    """`trait:NAME` = required or forbidden; `aggregate:PROPERTY` = the value that an aggregate of the host has. Raises
    UsageError for what no filter would understand, and a host would seem to fulfil."""
    prefix, _, name = key.partition(":")
    if prefix == "trait" and TRAIT.fullmatch(name):
        if value not in ("required", "forbidden"):
            raise UsageError(f"Property {key} is {value!r}: a trait is required or forbidden.")
    elif prefix == "trait":
        raise UsageError(f"Property {key!r} names no trait: capital letters, digits and _ make a trait's name.")
    elif prefix != "aggregate" or not name:
        raise UsageError(f"Property {key!r} is not known; there are trait:NAME and aggregate:PROPERTY.")
    elif not value:
        raise UsageError(f"Property {key} has no value: give the one that the aggregate's property must have.")
