"""rich's console, which commands a terminal itself, for texts that must not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TextIO

import rich.console
from rich.segment import Segment

from resizeflow.commands.visible import Visible, visible


class Console(rich.console.Console):
    """Writes past `Visible`, and makes visible what it is given itself."""

    def __init__(self, file: TextIO, **options: Any) -> None:
        super().__init__(file=file.terminal if isinstance(file, Visible) else file, **options)

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)
