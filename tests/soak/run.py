"""`make soak`: each test of a promise, fast and long, and how they ended, a table in `results/reliability.md`."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "results/reliability.md"
FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py"))
"""By name: `tests/soak` is not looked into by itself."""
OPTIONS = (*FILES, "-q", "-p", "no:cacheprovider")
ORDER = (
    "Generation survives being killed", "Training resumes exactly", "A checkpoint is complete or absent", "Disk full",
    "Two runs into one folder", "Hostile or broken input", "No code runs from data", "Paths stay inside", "Bombs",
    "One bad image stops nothing", "Nothing leaks", "Long soak", "Determinism", "Errors",
)  # fmt: skip


class Ledger:
    """Notes how each test of a promise ended: promise, file and function, cases, seconds, outcome."""

    def __init__(self, shard: int = 0, shards: int = 1) -> None:
        self.shard, self.shards = shard, shards
        self.promises: dict[str, str] = {}
        self.rows: dict[tuple[str, str], list[tuple[str, float, str]]] = defaultdict(list)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep only the tests of a promise."""
        items[:] = [item for item in items if item.get_closest_marker("promise")][self.shard :: self.shards]
        self.promises = {item.nodeid: item.get_closest_marker("promise").args[0] for item in items}  # type: ignore[union-attr]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take note of a test that ended, or of a fixture that did not let it begin."""
        if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
            name = report.nodeid.partition("[")[0].rpartition("/")[2]
            cases = next((str(value) for key, value in report.user_properties if key == "cases"), "")
            parameter = report.nodeid.partition("[")[2].removesuffix("]")
            outcome = report.outcome
            if report.skipped and isinstance(report.longrepr, tuple):
                outcome = f"skipped: {report.longrepr[2].removeprefix('Skipped: ')}"  # type: ignore[assignment]
            said = f"{parameter}: {cases}" if cases and parameter else cases
            self.rows[self.promises[report.nodeid], name].append((said, report.duration, outcome))

    def table(self, seconds: float, shards: int) -> str:
        """Return the table as Markdown."""
        lines = [
            "# Promises, as last tested", "",
            "Written by `make soak`; what each promise is and how it is tested is in "
            "[docs/reliability.md](../docs/reliability.md).", "",
            *([] if SHARE == "1" else [f"**Not with the counts that it promises, but {SHARE} times those.**", ""]),
            f"{time.strftime('%Y-%m-%d')}; Python {platform.python_version()}, torch {version('torch')}, Pillow "
            f"{version('pillow')}, safetensors {version('safetensors')}; {shards} at once, each on one thread of a "
            f"{os.cpu_count()}-core machine that others used; fuzzing by {ENGINE}; "
            f"{seconds / 60:.0f} minutes in all.", "",
            "| promise | test | cases | seconds | outcome |", "|---|---|---|---|---|",
        ]  # fmt: skip
        for (promise, name), found in sorted(self.rows.items(), key=lambda row: (ORDER.index(row[0][0]), row[0][1])):
            said = "<br>".join(cases for cases, _, _ in found if cases) or f"{len(found)}"
            outcomes = sorted({outcome for _, _, outcome in found})
            total = sum(duration for _, duration, _ in found)
            lines.append(f"| {promise} | `{name}` | {said} | {total:.1f} | {', '.join(outcomes)} |")
        return "\n".join(lines) + "\n"


ENGINE = f"atheris {version('atheris')}" if find_spec("atheris") else "mutation alone"
SHARE = os.environ.get("CYTOSYNTH_SOAK", "1")


def main(arguments: Sequence[str]) -> int:
    """Run the tests and write the table; with `--shards N` in N processes at once, each on one thread.

    Further `arguments` go to pytest, for a look at some of the tests, and the table is only printed.
    """
    os.chdir(ROOT)
    os.environ.setdefault("CYTOSYNTH_EXAMPLES", str(max(60, round(500 * float(SHARE)))))
    if arguments[:1] == ["--shard"]:
        return _part(int(arguments[1]), int(arguments[2]), Path(arguments[3]))
    shards, rest = (int(arguments[1]), arguments[2:]) if arguments[:1] == ["--shards"] else (1, arguments)
    ledger, started = Ledger(), time.monotonic()
    if shards == 1:
        ended = int(pytest.main([*OPTIONS, *rest], plugins=[ledger]))
    else:
        ended = _together(shards, ledger)
    table = ledger.table(time.monotonic() - started, shards)
    if rest:
        print(table)
    else:
        TABLE.write_text(table)
        print(TABLE.relative_to(ROOT))
    return ended


def _together(shards: int, ledger: Ledger) -> int:
    with tempfile.TemporaryDirectory() as folder:
        parts = [
            subprocess.Popen([sys.executable, __file__, "--shard", str(number), str(shards), folder])
            for number in range(shards)
        ]
        ended = [part.wait() for part in parts]
        for number in range(shards):
            for promise, name, *found in json.loads((Path(folder) / f"{number}.json").read_text()):
                ledger.rows[promise, name].append(tuple(found))
    return max(ended)


def _part(number: int, shards: int, folder: Path) -> int:
    ledger = Ledger(number, shards)
    ended = int(pytest.main([*OPTIONS, f"--basetemp={folder}/{number}"], plugins=[ledger]))
    rows = [(*key, *row) for key, found in ledger.rows.items() for row in found]
    (folder / f"{number}.json").write_text(json.dumps(rows))
    return ended


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
