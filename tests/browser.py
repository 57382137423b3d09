"""A real Chromium, Debian's, and what a page did in it that it must not."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.console import Console

CHROMIUM = Path("/usr/bin/chromium")
READABLE = 4.5
"""The contrast that text needs (WCAG 2, level AA)."""
WORST_CONTRAST = """() => {
  const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color[3] > 0) return color;
    }
    throw new Error("nothing behind");
  };
  let worst = [99, ""];
  for (const element of document.querySelectorAll("body *")) {
    const svg = element.namespaceURI.endsWith("svg");
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.getClientRects().length || (svg && element.tagName !== "text")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(parse(svg ? style.fill : style.color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst[0]) worst = [ratio, `${element.tagName} ${element.textContent.slice(0, 40)}`];
  }
  return worst;
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Starts it. Without one, tests are skipped, and fail in continuous integration."""
    if not CHROMIUM.exists():
        missing = f"{CHROMIUM} is missing: `scripts/bootstrap` installs it"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=120_000)
        yield browser
        browser.close()


@contextmanager
def served(console: Console, end: signal.Signals = signal.SIGINT) -> Iterator[str]:
    """`resizeflow dashboard` as a process, ended by Ctrl-C or another signal; its address."""
    dashboard = console.start("dashboard", "--listen", "127.0.0.1:0")
    try:
        assert dashboard.stdout is not None
        line = dashboard.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, (line, dashboard.communicate()[1])
        yield found[0]
    finally:
        dashboard.send_signal(end)
        _, said = dashboard.communicate(timeout=60)
    assert (dashboard.returncode, said) == (0, "")


class Watched:
    """A page, and all it asked for, said and showed in dialogs."""

    def __init__(self, context: BrowserContext) -> None:
        self.page: Page = context.new_page()
        self.requests: list[str] = []
        self.troubles: list[str] = []
        context.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", self._dialog)
        self.page.on("console", lambda message: self._said(message.type, message.text))
        self.page.on("pageerror", lambda error: self.troubles.append(f"error {error}"))

    def _dialog(self, dialog: Any) -> None:
        self.troubles.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def _said(self, kind: str, text: str) -> None:
        # A refusal of the content security policy is an error on the console, too.
        if kind == "error":
            self.troubles.append(text)

    def check_quiet(self, *places: str) -> None:
        """Nothing ran that is not ours, and nothing was asked of anybody else."""
        assert self.troubles == []
        assert [url for url in self.requests if not url.startswith(places)] == []

    def photograph(self, name: str, until: str = "#debts") -> None:
        """Writes NAME-light.png and NAME-dark.png, down to a section, into the folder that RESIZEFLOW_SCREENSHOTS
        names: for the documentation."""
        if not (folder := os.environ.get("RESIZEFLOW_SCREENSHOTS")):
            return
        top = self.page.locator(until).evaluate("part => part.getBoundingClientRect().top + scrollY")
        self.page.set_viewport_size({"width": 1200, "height": int(top)})
        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme=scheme)
            self.page.screenshot(path=Path(folder) / f"{name}-{scheme}.png")

    def check_fits(self) -> None:
        """The page itself does not scroll sideways."""
        widths = self.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert widths[0] <= widths[1], (self.page.url, widths)

    def check_readable(self) -> None:
        """All text stands out from what is behind it."""
        ratio, where = self.page.evaluate(WORST_CONTRAST)
        assert ratio >= READABLE, (self.page.url, where, ratio)

    def rows(self, section: str) -> list[list[str]]:
        """The cells of the table in a section, as they are read."""
        rows = self.page.locator(f"#{section} tbody tr")
        return [[" ".join(cell.split()) for cell in row.locator("th, td").all_inner_texts()] for row in rows.all()]
