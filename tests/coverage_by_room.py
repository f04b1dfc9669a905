"""`make coverage`: lines and branches of the package that the tests run, in all and by room.

`python tests/coverage_by_room.py FILE` reads what `pytest --cov-report=json:FILE` wrote.
"""

import json
import sys
from collections import Counter
from pathlib import Path, PurePath

COUNTED = ("num_statements", "covered_lines", "num_branches", "covered_branches")


def rooms(content: dict[str, dict]) -> dict[str, Counter[str]]:
    """Return the counts of coverage.py's JSON `content` by room, those of the whole package under 'all'."""
    found: dict[str, Counter[str]] = {"all": Counter()}
    for name, file in sorted(content["files"].items()):
        parts = PurePath(name).parts
        room = parts[parts.index("cytosynth") + 1]
        for key in ("all", room):
            found.setdefault(key, Counter()).update({count: file["summary"][count] for count in COUNTED})
    return found


def main(file: Path) -> None:
    """Print the table."""
    print("| room | lines | run | branches | taken |\n|---|---|---|---|---|")
    for room, count in rooms(json.loads(file.read_text())).items():
        lines, run, branches, taken = (count[name] for name in COUNTED)
        share = f"{taken / branches:.1%}" if branches else "–"
        print(f"| {room} | {lines} | {run / max(lines, 1):.1%} | {branches} | {share} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
