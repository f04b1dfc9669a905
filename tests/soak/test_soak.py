"""The long part: random kills of each command and trainer, ten thousand files a reader, a thousand images a process."""

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import configurations
import killing
import nasty
from candidate_sets import selecting, write_candidates
from command_lines import SUBCOMMANDS, command, filled, no_id_twice
from conftest import AUTOENCODER, DENOISER, TEXT, drawn, write_fields
from cytosynth import registry
from cytosynth.config import override
from cytosynth.detection import folder as found_in
from cytosynth.detection import model
from cytosynth.io import progress
from cytosynth.synthesis import synthesize
from cytosynth.synthesis.settings import PipelineSettings

SHARE = float(os.environ.get("CYTOSYNTH_SOAK", "1"))
"""Of the counts below, for trying these tests themselves."""
KILLS = max(2, round(50 * SHARE))
CASES = max(100, round(10_000 * SHARE))
IMAGES = max(60, round(1_000 * SHARE))
KEPT, KEPT_OF_CELL = 4000, 500
"""Bytes that a run keeps of each image and of each cell, for the annotations that it writes at its end."""
Note = Callable[[str, object], None]


@pytest.mark.promise("Generation survives being killed")
@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_killed_at_fifty_random_moments(
    subcommand: str, cytosynth: killing.Server, tiny: Path, tmp_path: Path, record_property: Note
) -> None:
    write_fields(tmp_path / "real", 4)

    def line(name: str) -> list[str]:
        return command(subcommand, tiny, tmp_path / "real", tmp_path / name, 2)

    cytosynth.run(*line("warm"))
    once = cytosynth.run(*line("once"))
    assert once.code == 0
    wanted = killing.content(tmp_path / "once")
    rng = np.random.default_rng(11)
    alive, writing = 0, 0
    for number in range(KILLS):
        out = tmp_path / f"killed-{number}"
        ended = cytosynth.run(*line(out.name), after=float(rng.uniform(0, once.seconds)))
        alive += ended.code == -signal.SIGKILL
        writing += ended.code == -signal.SIGKILL and any(out.glob("*.yaml")) | any(out.glob("*.json"))
        assert cytosynth.run(*line(out.name)).code == 0
        no_id_twice(out)
        assert killing.content(out) == wanted
    assert alive > KILLS / 2
    record_property(
        "cases", f"{KILLS} kills, {alive} met a live process, {writing} of them one that had begun to write"
    )


@pytest.mark.promise("Generation survives being killed")
@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_killed_at_every_change_of_the_disk(
    subcommand: str, cytosynth: killing.Server, tiny: Path, tmp_path: Path, record_property: Note
) -> None:
    write_fields(tmp_path / "real", 1)

    def line(name: str) -> list[str]:
        return command(subcommand, tiny, tmp_path / "real", tmp_path / name, 1)

    once = cytosynth.run(*line("once"), below=tmp_path / "once")
    wanted = killing.content(tmp_path / "once")
    moments = range(1, once.changes + 1, max(1, round(1 / SHARE)))
    for at in moments:
        out = tmp_path / f"killed-{at}"
        assert cytosynth.run(*line(out.name), at=at, below=out).code == -signal.SIGKILL
        assert cytosynth.run(*line(out.name)).code == 0
        no_id_twice(out)
        assert killing.content(out) == wanted
    record_property("cases", f"{len(moments)} kills, one before every change of the disk")


@pytest.mark.promise("Generation survives being killed")
def test_a_choice_killed_at_changes_all_along(
    cytosynth: killing.Server, fields: Path, tmp_path: Path, record_property: Note
) -> None:
    """`select`, whose trainings are runs within the run: all bytes of all that it writes are equal."""
    root = write_candidates(fields, tmp_path / "data")
    once = cytosynth.run(*selecting(tmp_path / "once", root), below=tmp_path / "once")
    assert once.code == 0, once.err
    wanted = killing.content(tmp_path / "once")
    moments = np.linspace(1, once.changes, max(5, round(25 * SHARE))).astype(int).tolist()
    for at in moments:
        out = tmp_path / f"killed-{at}"
        assert cytosynth.run(*selecting(out, root), at=at, below=out).code == -signal.SIGKILL
        ended = cytosynth.run(*selecting(out, root))
        assert ended.code == 0, ended.err
        assert killing.content(out) == wanted
        subprocess.run(["rm", "-rf", out], check=True)
    record_property("cases", f"{len(moments)} kills at as many of {once.changes} changes; {len(wanted)} files equal")


STEPS = ["max_steps=6", "checkpoint_every=2", "preview_every=3", "log_every=2", "warmup_steps=2"]


def trainers(tiny: Path) -> dict[str, list[str]]:
    """Return the command line of every trainer, without its run folder; `RUN` stands for it."""

    def flags(*settings: str) -> list[str]:
        return [flag for setting in (*STEPS, *settings, "data=[{root: drawn}]") for flag in ("--set", setting)]

    def spelled(values: dict[str, object]) -> list[str]:
        return [f"{key}={value}" for key, value in values.items()]

    sd = f"foundation={tiny / 'foundation'}"
    part = ["train", "foundation", "RUN", "--part"]
    normal = ["train", "normal", "RUN", "--preset", "bundled", "--adapter"]
    tuned = flags(sd, "window=64", "batch_size=2", "validate_every=2", "validate_count=8")
    return {
        "autoencoder": [*part, "autoencoder", *flags("batch_size=2", "ema_decay=0.9", *spelled(AUTOENCODER))],
        "decoder": [*part, "decoder", *flags("batch_size=2", "crops=[64]", "discriminator_channels=8")],
        "text": [*part, "text", *flags("batch_size=2", *spelled(TEXT))],
        "denoiser": [*part, "denoiser", *flags("batch_size=2", "ema_decay=0.9", *spelled(DENOISER))],
        **{name: [*normal, name, *tuned] for name in registry.ADAPTERS},
        "cell": ["train", "cell", "RUN", "--preset", "bundled",
                 *flags(sd, "batch_size=2", "variants=2", "validate_every=2", "validate_count=4")],
        "features": ["train", "features", "RUN", *flags("batch_size=2", "size=32", "categories=[NILM, LSIL]")],
        **{f"detector {name}": ["train", "detector", "RUN", "--preset", "bundled", "--architecture", name,
                                *flags("batch_size=2", "window=128", "categories=[NILM, LSIL]")]
           for name in registry.DETECTORS},
    }  # fmt: skip


NAMES = ("autoencoder", "decoder", "text", "denoiser", *registry.ADAPTERS, "cell", "features",
         *(f"detector {name}" for name in registry.DETECTORS))  # fmt: skip


@pytest.mark.promise("Training resumes exactly")
@pytest.mark.parametrize("name", NAMES)
def test_every_trainer_killed_and_continued(
    name: str, cytosynth: killing.Server, tiny: Path, fields: Path, tmp_path: Path, record_property: Note
) -> None:
    """All bytes but `timing.jsonl` are equal: weights, optimiser, EMA, statistics, scores, previews; so are batches."""
    template = trainers(tiny)[name]

    def begun(run: Path) -> Path:
        """Put what the decoder and the denoiser start from into the run folder; return the folder of the part."""
        if template[1] != "foundation":
            return run
        for part, source in (("autoencoder", tiny / "foundation/vae"), ("text", tiny / "foundation")):
            if name in ("decoder", "denoiser") and not (run / part).exists():
                (run / part).mkdir(parents=True)
                (run / part / "weights").symlink_to(source)
        return run / template[4]

    def command(run: Path) -> list[str]:
        return [str(run) if word == "RUN" else word for word in template] + ["--data-root", str(fields)]

    folder = begun(tmp_path / "once")
    once = cytosynth.run(*command(tmp_path / "once"), below=folder, batches=tmp_path / "once.batches")
    assert once.code == 0, once.err
    wanted = killing.content(folder, but=["timing.jsonl"])
    assert "checkpoints/step-00000006/optimizer.safetensors" in wanted
    assert any(key.startswith("weights/") for key in wanted)
    batches = noted(tmp_path / "once.batches")
    assert len(batches) >= 6
    rng = np.random.default_rng([5, NAMES.index(name)])
    moment = float(rng.uniform(0.1, 0.95) * once.seconds)
    for way in ("change", "moment"):
        run, seen = tmp_path / way, tmp_path / f"{way}.batches"
        folder = begun(run)
        if way == "change":
            at = int(rng.integers(once.changes // 4, once.changes))
            assert cytosynth.run(*command(run), at=at, below=folder, batches=seen).code == -signal.SIGKILL
        else:
            while cytosynth.run(*command(run), after=moment, batches=seen).code != -signal.SIGKILL:
                subprocess.run(["rm", "-rf", run], check=True)  # it ended before: a run that is warm is faster
                folder, moment = begun(run), 0.7 * moment
        again = cytosynth.run(*command(run), batches=seen)
        assert again.code == 0, again.err
        assert killing.content(folder, but=["timing.jsonl"]) == wanted
        for place, hashes in noted(seen).items():
            assert hashes == batches[place], "the data order, also of steps that were done twice"
        subprocess.run(["rm", "-rf", run], check=True)
    record_property("cases", f"2 kills; {len(wanted)} files and {len(batches)} batches bit-equal")


def noted(path: Path) -> dict[str, set[str]]:
    """Return the hashes of the batches of each (seed, rank, step, micro-step)."""
    found: dict[str, set[str]] = {}
    for line in path.read_text().splitlines():
        *place, content = json.loads(line)
        found.setdefault(str(place), set()).add(json.dumps(content))
    return found


@pytest.mark.promise("Disk full")
@pytest.mark.parametrize("subcommand", [*SUBCOMMANDS, "convert", "train"])
def test_on_a_full_disk(
    subcommand: str,
    cytosynth: killing.Server,
    tiny: Path,
    fields: Path,
    tmp_path: Path,
    small_disk: Path,
    record_property: Note,
) -> None:
    write_fields(tmp_path / "real", 3)

    def line(out: Path) -> list[str]:
        if subcommand == "train":
            lora = [str(out) if word == "RUN" else word for word in trainers(tiny)["lora"]]
            return [*lora, "--data-root", str(fields)]
        if subcommand == "convert":
            return ["convert", str(tmp_path / "real"), str(out), "--to", "voc"]
        return command(subcommand, tiny, tmp_path / "real", out, 2)

    assert cytosynth.run(*line(tmp_path / "once")).code == 0
    wanted = killing.content(tmp_path / "once", but=["timing.jsonl"])
    need, full = sum(map(len, wanted.values())), 0
    for share in np.linspace(0, 0.95, max(3, round(12 * SHARE))):
        ballast = filled(small_disk, int(need * share))
        ended = cytosynth.run(*line(small_disk / "run"))
        if ended.code:
            full += 1
            assert ended.code == 1, ended.err
            assert "No space left on device" in ended.err.splitlines()[-1]
            assert "Traceback" not in ended.err
            kept = killing.content(small_disk / "run") if subcommand != "train" else {}
            finished = ("images/", "images/", "qupath/")
            assert all(wanted[name] == content for name, content in kept.items() if name.startswith(finished))
        ballast.unlink()
        assert cytosynth.run(*line(small_disk / "run")).code == 0
        assert killing.content(small_disk / "run", but=["timing.jsonl"]) == wanted
        subprocess.run(["rm", "-rf", small_disk / "run"], check=True)
        assert not list(small_disk.iterdir()), "nothing is left beside it"
    assert full
    record_property("cases", f"{full} runs into a full disk, at as many places, continued")


@pytest.mark.promise("Errors")
@pytest.mark.parametrize("subcommand", [*SUBCOMMANDS, "train", "convert", "check"])
def test_memory_refused_anywhere(
    subcommand: str, cytosynth: killing.Server, tiny: Path, fields: Path, tmp_path: Path, record_property: Note
) -> None:
    """One line, exit code 3, and what a run has written is gone on from where there is memory again."""
    write_fields(tmp_path / "real", 2)
    source = str(tmp_path / "real")

    def line(out: Path) -> list[str]:
        if subcommand in SUBCOMMANDS:
            return command(subcommand, tiny, tmp_path / "real", out, 2)
        if subcommand == "train":
            small = [str(out) if word == "RUN" else word for word in trainers(tiny)["text"]]
            return [*small, "--data-root", str(fields)]
        return ["convert", source, str(out), "--to", "yolo"] if subcommand == "convert" else ["check", source]

    wall = ["text/timing.jsonl"]
    assert cytosynth.run(*line(tmp_path / "once")).code == 0
    wanted = killing.content(tmp_path / "once", but=wall)
    rng = np.random.default_rng(3)
    refused, died, tries = 0, 0, max(10, round(100 * SHARE))
    for number, room in enumerate(np.exp(rng.uniform(np.log(1 << 20), np.log(300 << 20), tries))):
        out = tmp_path / f"refused-{number}"
        ended = cytosynth.run(*line(out), memory=int(room))
        if ended.code:
            assert cytosynth.run(*line(out)).code == 0
        refused += killing.out_of_memory(ended)
        died += ended.code < 0
        assert killing.content(out, but=wall) == wanted
        subprocess.run(["rm", "-rf", out], check=True)
    assert refused > 4 * died
    said = f"refused {refused} times, of {tries} limits from 1 to 300 MiB"
    record_property("cases", said + (f", and {died} times a library crashed" if died else ""))


@pytest.mark.promise("Hostile or broken input")
@pytest.mark.parametrize("name", nasty.NAMES)
def test_ten_thousand_mutated_files(name: str, tmp_path: Path, record_property: Note) -> None:
    shared = Path("/dev/shm")
    sandbox = shared / f"cytosynth-fuzz-{os.getpid()}" if shared.is_dir() else tmp_path
    sandbox.mkdir(exist_ok=True)
    script = Path(__file__).with_name("fuzz.py")
    try:
        run = subprocess.run(
            [sys.executable, str(script), name, str(CASES), str(sandbox)], capture_output=True, text=True
        )
    finally:
        subprocess.run(["rm", "-rf", sandbox], check=True)
    assert run.returncode == 0, run.stderr[-3000:]
    (line,) = [line for line in run.stdout.splitlines() if line.startswith("cases ")]
    _, count, _, engine = line.split()
    assert int(count) >= CASES
    record_property("cases", f"{count} files, {engine}")


@pytest.mark.promise("Hostile or broken input")
def test_every_value_in_every_models_configuration(tiny: Path, tmp_path: Path, record_property: Note) -> None:
    run = configurations.models(tiny, tmp_path)
    tried = configurations.cases(tmp_path)
    tried = tried[:: max(1, round(1 / SHARE))]
    record_property("cases", f"{len(tried)}: each key of each configuration absent, and with 24 values")
    assert list(configurations.problems(tmp_path, tried, run)) == []


@pytest.mark.promise("Long soak")
@pytest.mark.parametrize("subcommand", ["edit", "synthesize", "detect"])
def test_a_thousand_images_in_one_process(subcommand: str, tiny: Path, tmp_path: Path, record_property: Note) -> None:
    if subcommand != "synthesize":
        (tmp_path / "own").mkdir()
        for number in range(IMAGES):
            pixels, _ = drawn(number, 256, 256)
            Image.fromarray(pixels).save(tmp_path / f"own/{number:04d}.png", compress_level=1)
    seen: list[tuple[int, int, int]] = []
    advance = progress.Meter.advance

    def measured(self: progress.Meter, note: str = "", amount: int = 1) -> None:
        advance(self, note, amount)
        if self.done % 10 == 0:
            gc.collect()
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            seen.append((self.done, resident, len(os.listdir("/proc/self/fd"))))  # noqa: PTH208

    changes = ["normal.size=256", "normal.steps=1", "cell.steps=1", "threshold=0.1", "max_cells=1", "cell.batch=2"]
    settings = override(PipelineSettings(), changes)
    given = {name: str(tiny / name) for name in ("foundation", "cell", "detector")}
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress.Meter, "advance", measured)
        if subcommand == "edit":
            data = synthesize.edit(tmp_path / "own", out, settings=settings, **given)
        elif subcommand == "synthesize":
            data = synthesize.synthesize(out, count=IMAGES, normal=str(tiny / "normal"), settings=settings, **given)
        else:
            detector = model.load(tiny / "detector")
            least = sorted(cell.score or 0 for cell in detector.find(pixels, 0.1))[-3]  # it finds 200 cells an image
            data = found_in.detect(found_in.gather(tmp_path / "own"), out, detector, threshold=least)
    assert len(data.images) == IMAGES
    count, memory, handles = (np.array(column, dtype=float) for column in zip(*seen, strict=True))
    settled = count > IMAGES * 0.2
    line, covariance = np.polyfit(count[settled], memory[settled], 1, cov=True)
    rest = memory[settled] - np.polyval(line, count[settled])
    grown, noise = line[0] * IMAGES, rest.std()
    cells = sum(len(image.cells) for image in data.images)
    most = 3 * noise + KEPT * IMAGES + KEPT_OF_CELL * cells
    assert grown < most, f"{grown / 1e6:.2f} MB over {IMAGES} images, noise {noise / 1e6:.2f} MB"
    assert handles[settled].max() <= handles[settled].min() + 1
    said = f"{IMAGES} images, {cells} cells; {line[0] / 1e3:+.2f} ± {2 * covariance[0, 0] ** 0.5 / 1e3:.2f} kB an image"
    said += f" (noise {noise / 1e6:.2f} MB)"
    record_property("cases", f"{said}, {int(handles[settled].max() - handles[settled].min())} handles more")
