"""What a made slide costs against its area: `python benchmarks/slide_cost.py OUT --sides 2048 4096 8192 16384`.

Each slide is made by `cytosynth slide` in a process of its own, in parts of at most --minutes in all; the same command
continues. Core seconds of the parts add up, and the peak memory is the largest of them. When every slide is there it
writes `slides_cost` (.md, .json, .csv) and slides_cost.png into OUT. What follows `--` goes to `cytosynth slide`.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cytosynth.io import atomic, records
from cytosynth.io.report import Report, Value
from cytosynth.slides.windows import Plane, kept, share

PARTS = "parts.jsonl"
"""What each part took."""
LATENT, FIELD = 8, 1024
"""Pixels for one of the bundled autoencoder's latents, and the side of a window."""
LEAST = 0.2
"""Minutes that are worth another part."""


def main() -> None:
    """Continue the slides; write the report when all are there."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", type=Path)
    options.add_argument("--sides", type=int, nargs="+", default=[2048, 4096, 8192, 16384])
    options.add_argument("--minutes", type=float, default=1e6)
    words = sys.argv[1:]
    last = words.index("--") if "--" in words else len(words)
    given, rest = options.parse_args(words[:last]), words[last + 1 :]
    end = time.monotonic() + 60 * given.minutes
    for side in given.sides:
        while not (given.out / str(side) / "README.md").exists():
            left = (end - time.monotonic()) / 60
            if left < LEAST:
                print(f"stopped at {side}; the same command continues")
                return
            part(given.out / str(side), side, left, rest)
    report(given.out, given.sides, rest)


def part(out: Path, side: int, minutes: float, options: list[str]) -> None:
    """Make the slide in `out`, or go on with it, and note what that took; raise CalledProcessError where it fails."""
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "cytosynth", "slide", str(out), "--width", str(side), "--height", str(side),
               "--max-minutes", str(minutes), *options]  # fmt: skip
    started = time.monotonic()
    child = subprocess.Popen(command)
    _, status, used = os.wait4(child.pid, 0)
    took = {
        "side": side, "seconds": time.monotonic() - started, "core_seconds": used.ru_utime + used.ru_stime,
        "peak_mib": used.ru_maxrss / 1024,
    }  # fmt: skip
    records.append(out.parent / PARTS, took)
    if status:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), command)


def report(out: Path, sides: list[int], options: list[str]) -> None:
    """Write the table and the plot of all slides."""
    parts = [json.loads(line) for line in (out / PARTS).read_text().splitlines()]
    rows: list[tuple[Value, ...]] = []
    for side in sides:
        own = [one for one in parts if one["side"] == side]
        core = sum(one["core_seconds"] for one in own)
        window, _ = kept("shifted", FIELD // LATENT)
        plane = Plane.around(-(-side // LATENT), -(-side // LATENT), window)
        windows = plane.width * plane.height // window**2 * share("shifted")
        wall, peak = sum(one["seconds"] for one in own), max(one["peak_mib"] for one in own)
        megapixels = side**2 / 1e6
        rows.append((side, round(megapixels, 1), windows, len(own), round(wall), round(core),
                     round(core / megapixels, 2), round(peak)))  # fmt: skip
    area, cost = np.array([[float(row[1] or 0), float(row[5] or 0)] for row in rows]).T
    facts: dict[str, object] = {"options": " ".join(options), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    if len(rows) > 1:
        facts["exponent of core seconds in area"] = round(float(np.polyfit(np.log(area), np.log(cost), 1)[0]), 3)
    columns = ("side", "megapixels", "windows a step", "parts", "seconds", "core seconds", "core seconds a megapixel",
               "peak memory, MiB")  # fmt: skip
    notes = (
        "each part loads the models and generates nothing again; a part that is stopped ends with what is on disk",
        "an exponent of 1: cost grows as the area does; windows are whole, so a small slide has more of them an area",
    )
    made = Report("Cost of made slides", facts, columns, tuple(rows), notes)
    made.write(out, "slides_cost")
    made.show()
    figure = Figure(figsize=(5, 3.6), dpi=130, layout="constrained")
    axis = figure.subplots()
    axis.loglog(area, cost, "o-", color="#0072B2", label="measured")
    axis.loglog(area, cost[-1] * area / area[-1], ":", color="#555555", label="linear, through the largest")
    axis.set_xlabel("area, megapixels")
    axis.set_ylabel("core seconds")
    axis.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    atomic.write_bytes(out / "slides_cost.png", buffer.getvalue())


if __name__ == "__main__":
    main()
