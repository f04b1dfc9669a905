"""What the quality gate keeps of the first edits of three sets, at first attempt and within three.

    python examples/gate_acceptance.py DATA OUT
    python examples/gate_acceptance.py DATA OUT --edits 8 -- --cell my_run --set cell.steps=10

DATA holds cric, lbc_x40 and tct_fields; one that is not there is left out. Each is edited by `cytosynth edit` into OUT
with `--gate nucleus --tries 3`, in images of seed 0; what follows `--` goes to it too. A stopped run continues.
Writes `gate_acceptance` (.md, .json, .csv) into OUT.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from cytosynth.cell.quality import gate
from cytosynth.io.report import Report, Value
from cytosynth.provenance import RECORDS

SETS = {
    "cric": ("--split", "val", "--label", "Negative"),
    "lbc_x40": ("--label", "NILM"),
    "tct_fields": (),
}
"""Which of their images are edited."""
IMAGES = {"tct_fields": "images"}
"""Where they are, in the folder of a set. Every image of TCT has boxes of abnormal cells, so its images are given
without annotations, and a cell that is edited may be an abnormal one."""
CELLS = {"cric": 12, "lbc_x40": 2, "tct_fields": 2}
"""Cells of an image; CRIC has two normal images in `val`."""


def main() -> None:
    """Edit each set, or go on with it; write the report."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--edits", type=int, default=24, help="cells of each set")
    options.add_argument("--tries", type=int, default=3)
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    given, rest = options.parse_args(words[:end]), words[end + 1 :]
    rows: list[tuple[Value, ...]] = []
    models: dict[str, str] = {}
    for name in SETS:
        if not (given.data / name).is_dir():
            print(f"{name}: not there, left out", file=sys.stderr)
            continue
        edit(given.data / name, given.out / name, given.edits, given.tries, rest)
        records = [json.loads(line) for line in (given.out / name / RECORDS).read_text().splitlines()]
        models |= records[0]["models"]
        rows += summary(name, records)
    columns = ("set", "category", "cells tried", "kept at first attempt", f"kept within {given.tries}", "attempts",
               "why attempts failed")  # fmt: skip
    facts = {"edits of each set": given.edits, "options": " ".join(rest), **models}
    report = Report("What the gate keeps", facts, columns, tuple(rows), ("`--gate nucleus`: nucleus and appearance",))
    report.write(given.out, "gate_acceptance")
    report.show()


def edit(data: Path, out: Path, edits: int, tries: int, rest: list[str]) -> None:
    """Edit `edits` cells of `data` into `out`; raise CalledProcessError where that fails."""
    cells = min(CELLS[data.name], edits)
    images = data / IMAGES.get(data.name, "")
    command = [sys.executable, "-m", "cytosynth", "edit", str(images), str(out), "--scale", "0.5", "--seed", "0",
               *SETS[data.name], "--limit", str(-(-edits // cells)), "--gate", "nucleus", "--tries", str(tries),
               "--set", f"min_cells={cells}", "--set", f"max_cells={cells}", *rest]  # fmt: skip
    subprocess.run(command, check=True)


def summary(name: str, records: list[dict[str, object]]) -> list[tuple[Value, ...]]:
    """Return a row for each category of the set `name`, and one for all."""
    found = gate.acceptance(records)
    total = {key: sum(row[key] for row in found) for key in ("tried", "at_once", "kept", "attempts")}
    reasons = sum((Counter(row["reasons"]) for row in found), Counter())
    rows: list[tuple[Value, ...]] = []
    for row in [*found, {"category": "all", **total, "reasons": reasons}]:
        why = ", ".join(f"{reason} {count}" for reason, count in row["reasons"].most_common())
        rows.append((name, row["category"], row["tried"], row["at_once"], row["kept"], row["attempts"], why))
    return rows


if __name__ == "__main__":
    main()
