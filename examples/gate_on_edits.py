"""What the quality gate says of the edits of a run that had none, or another one.

    cytosynth edit DATA/cric OUT --scale 0.5 --split val --label Negative
    python examples/gate_on_edits.py OUT DATA/cric/images --scale 0.5

Each edited region is laid into the unedited image by itself and shown to the gate with its default settings. Prints how
many of the edits the whole gate, its criteria of appearance, and nucleus and seam alone would keep, and why not.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from cytosynth.cell.quality.gate import Gate, Verdict
from cytosynth.cell.settings import GateSettings
from cytosynth.data import image_files

FORMER = {"nucleus", "seam"}


def main() -> None:
    """Read the options, score the edits, print what is kept."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", type=Path)
    options.add_argument("images", type=Path)
    options.add_argument("--scale", type=float, default=1.0)
    options.add_argument("--limit", type=int, default=24)
    given = options.parse_args()
    reasons = [set(verdict.reasons) for verdict in verdicts(given.out, given.images, given.scale)[: given.limit]]
    print(f"edits: {len(reasons)}")
    print(f"kept by nucleus and seam: {sum(not one & FORMER for one in reasons)}")
    print(f"kept by appearance: {sum(not one - {'nucleus'} for one in reasons)}")
    print(f"kept by all: {sum(not one for one in reasons)}")
    print(f"reasons: {dict(Counter(name for one in reasons for name in one).most_common())}")


def verdicts(out: Path, images: Path, scale: float) -> list[Verdict]:
    """Return the verdict on each edit of the run in `out`, in the order of its images and cells."""
    gate, found = Gate(None, GateSettings()), []
    records = [json.loads(line) for line in (out / "provenance.jsonl").read_text().splitlines()]
    for record in sorted(records, key=lambda record: str(record["file_name"])):
        original = image_files.read(images / record["original"], scale)
        finished = image_files.read(out / "images" / record["file_name"])
        for cell in record["cells"]:
            x0, y0, x1, y1 = (int(value) for value in cell["edited_xyxy"])
            alone = original.copy()
            alone[y0:y1, x0:x1] = finished[y0:y1, x0:x1]
            region = (float(x0), float(y0), float(x1), float(y1))
            found.append(gate.verdict(original, alone, tuple(cell["bbox_xyxy"]), region, cell["category"]))
    return found


if __name__ == "__main__":
    main()
