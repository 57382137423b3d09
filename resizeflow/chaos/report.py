"""What a run of many cases came to: a table for people, JUnit XML for CI."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lxml import etree

from resizeflow.chaos.laboratory import Result
from resizeflow.chaos.runner import Piece


@dataclass
class Line:
    """The cases of one kind of one scenario."""

    scenario: str
    kind: str
    points: int = 0
    """Where the (first) fault was."""
    results: list[Result] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return len(self.results)

    @property
    def violations(self) -> int:
        return sum(bool(result.wrong) for result in self.results)

    @property
    def never(self) -> int:
        """Cases whose (last) kill never came, because the run did not pass the point that time."""
        return sum(not result.happened for result in self.results)


class Report:
    """Collects pieces as they come."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        """`pieces` is all that is to be run: the order of the lines."""
        self._lines = {(piece.scenario, piece.kind): Line(piece.scenario, piece.kind) for piece in pieces}

    @property
    def lines(self) -> Sequence[Line]:
        return list(self._lines.values())

    def add(self, piece: Piece) -> None:
        line = self._lines[piece.scenario, piece.kind]
        line.points += len(piece.first)
        line.results += piece.results

    def write_junit(self, path: Path) -> None:
        """A suite for each line, a test case for each case, by the name that runs it again."""
        suites = etree.Element("testsuites", name="resizeflow chaos")
        for line in self.lines:
            name, tests, failures = f"{line.scenario} {line.kind}", str(line.cases), str(line.violations)
            suite = etree.SubElement(suites, "testsuite", name=name, tests=tests, failures=failures)
            for result in line.results:
                _add(suite, result)
        etree.ElementTree(suites).write(path, encoding="utf-8", xml_declaration=True, pretty_print=True)


def _add(suite: etree._Element, result: Result) -> None:
    scenario, name, seconds = result.case.scenario, result.case.name, f"{result.seconds:.3f}"
    case = etree.SubElement(suite, "testcase", classname=f"chaos.{scenario}", name=name, time=seconds)
    if result.wrong:
        failure = etree.SubElement(case, "failure", message=result.wrong[0])
        failure.text = "\n".join([*result.wrong, "", result.story])
