"""What a resize costs with the log that it writes, beside earlier commits: run by `benchmarks.audit`, in each tree.

python -m benchmarks.cost URL FOLDER        a line of JSON for each line that it reads
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.bench import BenchError
from benchmarks.steps import Counter, Resize
from lab.system import run


def main() -> None:
    """Resizes once for each line that it reads, and says what it cost."""
    logging.disable(logging.CRITICAL)
    engine = Resize(sys.argv[1], Path(sys.argv[2]))
    counter = Counter(engine.sql)
    for _ in sys.stdin:
        before = _lines(engine)
        counter.reset()
        cpu = time.process_time()
        engine.once()
        cost = {"cpu_seconds": time.process_time() - cpu, "statements": counter.statements, "commits": counter.commits}
        cost["lines"] = _lines(engine) - before
        engine.between()
        print(json.dumps(cost), flush=True)


def _lines(engine: Resize) -> int:
    with engine.sql.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM events").scalar_one())


class Tree:
    """The program of a commit, in a process of its own that resizes when it is told to."""

    def __init__(self, tree: Path, url: str, memory: Path) -> None:
        # Earlier commits do not have this file.
        with contextlib.suppress(shutil.SameFileError):
            shutil.copy(__file__, tree / "benchmarks")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.cost", url, str(memory)],
            cwd=tree,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.once()  # the first run compiles statements

    def once(self) -> dict[str, float]:
        """Raises BenchError if it ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise BenchError("a tree's process ended unexpectedly")
        return dict(json.loads(answer))

    def close(self) -> None:
        self._process.communicate()


@contextlib.contextmanager
def trees(commits: Mapping[str, str]) -> Iterator[dict[str, Path]]:
    """This tree, and those of earlier commits, by what they are; all of them gone in the end."""
    here = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory(prefix="resizeflow-trees-") as folder, contextlib.ExitStack() as stack:
        found = {}
        for name, commit in commits.items():
            tree = found[name] = Path(folder) / commit
            run(["git", "-C", str(here), "worktree", "add", "--detach", str(tree), commit])
            stack.callback(run, ["git", "-C", str(here), "worktree", "remove", "--force", str(tree)])
        yield found | {"now": here}


if __name__ == "__main__":
    main()
