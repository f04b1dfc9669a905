"""What scale costs: memory of the readers against records, time to merge, images a second against workers.

python benchmarks/scale.py records FOLDER     (made-up records, 20,000 and 200,000)
python benchmarks/scale.py workers FOLDER     (needs Ray and quiet cores; OMP_NUM_THREADS=1)

Each figure is of a process of its own. Writes `scale_records` and `scale_workers` (.md, .json, .csv) into FOLDER. What
`records` has measured is kept in FOLDER/measured.jsonl, and the same command measures the rest. Seconds say little
on a machine that does something else; memory does not depend on that.
"""

import io
import json
import multiprocessing
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from cytosynth import devices
from cytosynth.annotations import Cell, DataSet, Image
from cytosynth.data import check as checking
from cytosynth.data import sources, streaming
from cytosynth.data.formats import coco_parts
from cytosynth.data.shard import Shard
from cytosynth.data.sources import Source
from cytosynth.io.records import append
from cytosynth.io.report import Report, Value

SIDE, CELLS = 16, 4
RECORDS = (20_000, 200_000)
SAMPLED = 5_000
"""Images of a training that are read at random."""
MEASURED = "measured.jsonl"
COUNT = 24
"""Images of a run whose workers are counted."""
SETTINGS = ["normal.size=512", "normal.steps=10", "cell.steps=10", "max_cells=4", "seed=1"]


def made(count: int) -> Iterator[tuple[Image, bytes]]:
    """Yield `count` images of noise with cells in rows."""
    rng = np.random.default_rng(0)
    for number in range(count):
        file = io.BytesIO()
        PILImage.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(file, "PNG", compress_level=1)
        cells = tuple(Cell((float(x), 2.0, x + 3.0, 6.0), "HSIL") for x in range(CELLS))
        yield Image(f"{number:07d}.png", SIDE, SIDE, cells, {"synthetic": True}), file.getvalue()


def write(kind: str, root: Path, count: int) -> None:
    """Write a data set of `count` made-up images as `kind` to `root`."""
    about = DataSet(root / "images", (), ("HSIL",), (), {"synthetic": True})
    root.mkdir(parents=True)
    if kind == "coco":
        (root / "images").mkdir()

        def copied() -> Iterator[Image]:
            for image, content in made(count):
                (root / "images" / image.file_name).write_bytes(content)
                yield image

        coco_parts.write(about, copied(), count, root)
        return
    writer = streaming.WRITERS[kind](about, root)
    for image, content in made(count):
        writer.add(image, content)
    writer.close()


def check(root: Path) -> None:
    """Go through the whole set."""
    assert not list(streaming.check(root) if streaming.kind(root) else checking.check(root))


def convert(root: Path) -> None:
    """Write it as the other packed format."""
    streaming.convert(root, converted(root), None, converted(root).name.rsplit(" ", 1)[1])


def converted(root: Path) -> Path:
    """Return where `convert` writes the data set in `root`."""
    return root.with_name(f"{root.name} {'webdataset' if root.name.startswith('parquet') else 'parquet'}")


def train(root: Path) -> None:
    """Read images at random, as a trainer does."""
    samples = sources.load([Source(root=root.name, split="all")], root.parent)
    rng = np.random.default_rng(0)
    for index in rng.integers(len(samples), size=SAMPLED):
        sample = samples[int(index)]
        assert sample.pixels.shape[0] == SIDE and len(sample.cells) == CELLS


def measured(work: Callable[..., None], *arguments: object) -> tuple[float, float]:
    """Return the seconds and the peak MiB of `work` in a process of its own, above what it begins with."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_measured, (work, arguments))


def _measured(work: Callable[..., None], arguments: tuple[object, ...]) -> tuple[float, float]:
    before, started = devices.peak_memory(), time.monotonic()
    work(*arguments)
    return time.monotonic() - started, (devices.peak_memory() - before) / 2**20


def records(root: Path) -> Report:
    """Measure the readers and writers, or continue with what is missing."""
    kept = root / MEASURED
    known = {(row["kind"], row["count"], row["work"]): row for row in (
        json.loads(line) for line in (kept.read_text().splitlines() if kept.exists() else []))}  # fmt: skip
    rows: list[tuple[Value, ...]] = []
    for count in RECORDS:
        for kind in ("webdataset", "parquet", "coco"):
            data = root / f"{kind} {count}"
            works: list[Callable[..., None]] = [write, check] if kind == "coco" else [write, check, convert, train]
            for work in works:
                asked = (kind, count, work.__name__)
                if asked not in known:
                    shutil.rmtree(data if work is write else converted(data), ignore_errors=True)
                    seconds, peak = measured(work, *((kind, data, count) if work is write else (data,)))
                    known[asked] = {"kind": kind, "count": count, "work": work.__name__, "seconds": round(seconds, 1),
                                    "memory": round(peak, 1)}  # fmt: skip
                    append(kept, known[asked])
                rows.append(tuple(known[asked].values()))
                print(rows[-1], flush=True)
    notes = (
        f"images of {SIDE}x{SIDE} pixels with {CELLS} cells each; coco is in parts of 10,000 images above 100,000",
        f"train reads {SAMPLED:,} images at random",
        "memory is the peak of the process above what it held before (Python, NumPy, PyTorch: about 500 MiB)",
    )
    columns = ("format", "records", "work", "seconds", "memory, MiB")
    return Report("Readers of large data sets", facts(), columns, tuple(rows), notes)


def facts() -> dict[str, object]:
    """Return what a repetition needs."""
    return {"cores": os.cpu_count(), "python": platform.python_version(), "load": round(os.getloadavg()[0], 1)}


def workers(root: Path) -> Report:
    """Measure a run of the bundled models in this process, in shards that are merged, and with one to three workers."""
    from ray.cluster_utils import Cluster

    from cytosynth.config import override
    from cytosynth.scale import ray_engine
    from cytosynth.scale.merge import merge
    from cytosynth.synthesis import models, synthesize
    from cytosynth.synthesis.settings import PipelineSettings

    settings = override(PipelineSettings(), SETTINGS)
    rows: list[tuple[Value, ...]] = []

    def run(name: str, load: object, shard: Shard | None = None) -> float:
        """Return the seconds from the models' being loaded to the end of the run."""
        began: list[float] = []

        def loaded(given: models.Models) -> object:
            engine = load(given)  # type: ignore[operator]
            began.append(time.monotonic())
            return engine

        out = root / name
        synthesize.synthesize(out, count=COUNT, settings=settings, load=loaded, shard=shard)  # type: ignore[arg-type]
        return time.monotonic() - began[0]

    def add(name: str, seconds: float, images: int = COUNT) -> None:
        rows.append((name, images, round(seconds, 1), round(images / seconds, 3)))

    add("this process", run("plain", models.load))
    add("shard 1/2", run("1", models.load, Shard(1, 2)), COUNT // 2)
    run("2", models.load, Shard(2, 2))
    started = time.monotonic()
    merge(root / "merged", [root / "1", root / "2"])
    add("merge of two shards", time.monotonic() - started)
    for count in (1, 2, 3):
        node = {"num_cpus": count, "object_store_memory": 100 << 20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        with ray_engine.loading_at(cluster.address) as load:
            add(f"{count} Ray worker{'s' * (count > 1)}", run(f"ray {count}", load))
        cluster.shutdown()
    add("this process, again", run("plain again", models.load))
    notes = (
        f"{COUNT} images, {', '.join(SETTINGS)}, the bundled models, one thread a process",
        "seconds from the models' being loaded in the first process to the end of the run",
    )
    return Report("Workers", facts(), ("who", "images", "seconds", "images a second"), tuple(rows), notes)


if __name__ == "__main__":
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    what, place = sys.argv[1], Path(sys.argv[2])
    place.mkdir(parents=True, exist_ok=True)
    found = {"records": records, "workers": workers}[what](place)
    found.show()
    found.write(place, f"scale_{what}")
