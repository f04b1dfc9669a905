"""Making slides: noise by position, windows, samplers, gaps, decoding, editing by region, pyramids, kills."""

import json
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from cytosynth.annotations import Cell
from cytosynth.cell.settings import EditSettings
from cytosynth.config import override
from cytosynth.data.slides import reader
from cytosynth.detection.model import Detector, DetectorConfig
from cytosynth.errors import UsageError, UserError
from cytosynth.foundation import samplers, sampling
from cytosynth.foundation.load import load
from cytosynth.io.progress import Meter, meter
from cytosynth.slides import commands, decode, edits, stage2
from cytosynth.slides.decode import Decoding
from cytosynth.slides.denoise import stepped
from cytosynth.slides.mapped import MappedArray, wrapped
from cytosynth.slides.noise import smooth, white
from cytosynth.slides.pooled import pooled
from cytosynth.slides.preparation import Preparation, stained
from cytosynth.slides.pyramid import FileSettings, reduce, sizes, write
from cytosynth.slides.settings import SlideSettings
from cytosynth.slides.windows import Plane, share
from cytosynth.slides.work import Paused, Work
from cytosynth.synthesis.settings import PipelineSettings

openslide = pytest.importorskip("openslide", reason="the extra 'slides' is not installed")
SETTINGS = ["normal.size=128", "normal.steps=3", "cell.steps=2", "cell.batch=2", "threshold=0.05"]


def settings(width: int = 300, height: int = 280, **changes: object) -> SlideSettings:
    counts = changes.pop("counts", {})
    both = override(PipelineSettings(counts=counts), SETTINGS)
    return SlideSettings(width=width, height=height, pipeline=both, **changes)


def made(
    tiny: Path, out: Path, wanted: SlideSettings, plan: Path | None = None, max_minutes: float | None = None
) -> dict[str, bytes]:
    """Make a slide with the tiny models; return its files."""
    commands.slide(
        out, wanted, plan=plan, foundation=str(tiny / "foundation"), normal=str(tiny / "normal"),
        cell=str(tiny / "cell"), detector=str(tiny / "detector"), max_minutes=max_minutes,
    )  # fmt: skip
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def test_noise_depends_on_its_place_alone() -> None:
    whole = white((7, 0, 1), 3, 0, 0, 200, 150)
    assert torch.equal(white((7, 0, 1), 3, 50, 60, 100, 70), whole[:, 60:130, 50:150])
    assert not torch.equal(white((7, 0, 2), 3, 0, 0, 200, 150), whole)
    assert abs(float(whole.mean())) < 0.02 and abs(float(whole.std()) - 1) < 0.02
    field = smooth((7, 1), 20.0, 0, 0, 900, 800)
    assert np.allclose(smooth((7, 1), 20.0, 311, 205, 40, 30), field[205:235, 311:351], atol=1e-9)
    assert field.std() == pytest.approx(1, abs=0.08) and abs(field.mean()) < 0.1
    assert np.abs(np.diff(field, axis=1)).max() < 0.3  # smooth
    coarse = smooth((7, 1), 20.0, 10, 10, 5, 5, step=8)
    assert coarse[0, 0] == pytest.approx(field[80:88, 80:88].mean(), abs=0.02)


@pytest.mark.parametrize("kind", ["shifted", "overlapping"])
def test_windows_cover_every_place_alike_and_move(kind: str) -> None:
    plane = Plane.around(70, 40, 32)
    assert (plane.width, plane.height) == (96, 64)
    corners = []
    for step in range(4):
        counts = np.zeros((plane.height, plane.width), dtype=int)
        corners.append(list(plane.windows(kind, 3, step)))  # type: ignore[arg-type]
        for x, y in corners[-1]:
            for rows, _ in wrapped(y, 32, plane.height):
                for columns, _ in wrapped(x, 32, plane.width):
                    counts[rows, columns] += 1
        assert (counts == share(kind)).all()  # type: ignore[arg-type]
    assert all(a != b for a, b in pairwise(corners)) == (kind == "shifted")
    assert list(plane.windows(kind, 3, 2)) == corners[2]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ddim", "euler", "lcm", "tcd", "ddim-trailing"])
def test_single_steps_are_those_of_the_sampling_loop(tiny: Path, name: str) -> None:
    model = load(str(tiny / "foundation")).freeze()
    text = model.encode_text(["a", ""])
    start = sampling.noise((1, 4, 16, 16), 5)
    guided = sampling.guided(model.unet, text[:1], text[1:], 3.0)
    whole = sampling.sample(guided, samplers.build(name, model.scheduler), start, steps=4, seeds=[(5,)])
    scheduler = samplers.build(name, model.scheduler)
    scheduler.set_timesteps(4)
    denoiser = sampling.guided(model.unet, text[:1], text[1:], 3.0)
    generators = [sampling.generator(5, 2)]  # the draws of the loop, one a step

    def draw() -> torch.Tensor:
        return randn_tensor((1, 4, 16, 16), generator=generators)[0]

    latents = start * scheduler.init_noise_sigma
    with torch.no_grad():
        for index in range(4):
            elsewhere = stepped(scheduler, index, denoiser, latents * 0.5, lambda: torch.zeros(4, 16, 16))
            latents = stepped(scheduler, index, denoiser, latents, draw)  # no other window changes what it gives
            assert elsewhere.isfinite().all()
    assert torch.allclose(latents, whole, atol=2e-5)


def test_cells_lie_where_the_preparation_has_them() -> None:
    full = Preparation(1, 8000, 8000, "full")
    density, cover = (part(0, 0, 500, 500, 16) for part in (full.density, full.cover))
    assert 0.8 < density.mean() < 0.95 and density.std() > 0.03
    assert cover.mean() == pytest.approx(density.mean(), abs=0.03)  # the share that is covered is the density
    assert np.allclose(full.cover(100, 200, 50, 40, 16), cover[200:240, 100:150])
    disc = Preparation(1, 8000, 8000, "disc").cover(0, 0, 500, 500, 16)
    ys, xs = np.mgrid[:500, :500] - 249.5
    assert disc[np.hypot(xs, ys) > 265].max() < 1e-3 and disc[np.hypot(xs, ys) < 200].mean() > 0.75
    halves = Preparation(1, 8000, 8000, np.array([[0.0, 1.0]])).cover(0, 0, 500, 500, 16)
    assert halves[:, :100].max() < 1e-3 and halves[:, 400:].mean() > 0.75
    stain = full.stain(0, 0, 600, 400)
    assert np.allclose(full.stain(123, 77, 200, 100), stain[77:177, 123:323], atol=1e-6)
    assert np.abs(np.diff(stain)).max() < 1e-3


def test_stain_moves_optical_density_and_leaves_glass() -> None:
    glass = np.array([240, 242, 244], dtype=np.int16)
    pixels = np.array([[[240, 242, 244], [120, 60, 200]]], dtype=np.float32)
    deeper = stained(pixels, glass, np.full((1, 2), 1.5))
    assert np.allclose(deeper[0, 0], glass)
    assert np.allclose(-np.log10(deeper[0, 1] / glass), 1.5 * -np.log10(pixels[0, 1] / glass), atol=1e-5)


def test_overlapping_tiles_are_blended_and_a_stopped_decoding_continues(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "TILE", 16)
    monkeypatch.setattr(decode, "OVERLAP", 4)
    monkeypatch.setattr("cytosynth.slides.preparation.STAIN", 0.0)
    model = load(str(tiny / "foundation")).freeze()
    latents = MappedArray(tmp_path / "z", (4, 40, 48), np.float32)
    latents.array[:] = sampling.noise((4, 40, 48), 1).numpy()
    preparation, glass = Preparation(1, 330, 300, "full"), np.full(3, 255, dtype=np.int16)

    def decoding(name: str) -> Decoding:
        return Decoding(model, latents, MappedArray(tmp_path / name, (300, 330, 3), np.uint8), preparation, glass, 8)

    whole = decoding("a")
    with meter("", 1) as bar:
        whole.run(0, lambda row: None, bar)
        for row in range(whole.rows):  # every row by itself, as after a kill
            decoding("b").run(row, lambda done, row=row: None, bar)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    expected, total = np.zeros((400, 400, 3)), np.zeros((400, 400, 1))
    for y in (0, 12, 22):  # 38 rows of latents are wanted, 42 columns
        for x in (0, 12, 24, 26):
            tile = model.decode_latents(torch.from_numpy(latents.array[None, :, y : y + 16, x : x + 16].copy()))[0]
            down, across = (ramps(at, others) for at, others in ((y, (0, 12, 22)), (x, (0, 12, 24, 26))))
            weight = (down[:, None] * across[None])[..., None]
            expected[y * 8 : y * 8 + 128, x * 8 : x * 8 + 128] += weight * tile
            total[y * 8 : y * 8 + 128, x * 8 : x * 8 + 128] += weight
    inside = (slice(0, 300), slice(0, 200))  # to the right three tiles lie over each other
    assert np.allclose(total[inside], 1)
    assert np.abs(whole.pixels.array[inside] - expected[inside]).max() <= 1.01


def test_a_pooled_decoder_gives_tiles_what_it_gives_the_whole(tiny: Path) -> None:
    model = load(str(tiny / "foundation")).freeze()
    latents = sampling.noise((1, 4, 48, 48), 3)
    latents[..., 24:] *= 0.1  # half of it is quiet, half not
    same = pooled(model, latents)
    whole = model.decode_latents(latents)[0].astype(int)
    assert np.abs(same.decode_latents(latents)[0].astype(int) - whole).max() <= 1  # its own statistics: as ever
    tile = same.decode_latents(latents[..., 24:])[0].astype(int)
    inside = (slice(None), slice(160, 192))  # 20 latents from the cut
    assert np.abs(tile[inside] - whole[:, 192:][inside]).max() <= 1
    alone = model.decode_latents(latents[..., 24:])[0].astype(int)
    assert np.abs(alone[inside] - whole[:, 192:][inside]).mean() > 3  # what a tile's own statistics would do


def ramps(at: int, starts: tuple[int, ...]) -> np.ndarray:
    """Return the weights along one axis of the tile that begins at `at` latents, among tiles at `starts`."""
    weights = np.ones(128)
    index = starts.index(at)
    if index:
        reach = (starts[index - 1] + 16 - at) * 8
        weights[:reach] *= (np.arange(reach) + 0.5) / reach
    if index + 1 < len(starts):
        reach = (at + 16 - starts[index + 1]) * 8
        weights[128 - reach :] *= 1 - (np.arange(reach) + 0.5) / reach
    return weights


def test_a_disk_without_room_is_said_before_anything_is_written(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        MappedArray(small_disk / "latents", (4, 2000, 2000), np.float32)
    assert (small_disk / "latents").stat().st_size == 0
    kept = MappedArray(small_disk / "latents", (10, 10), np.float32)
    kept.array[3, 4] = 7
    kept.release()
    assert MappedArray(small_disk / "latents", (10, 10), np.float32).array[3, 4] == 7
    assert MappedArray(small_disk / "latents", (10, 11), np.float32).array.max() == 0  # of another slide


def test_cells_are_dealt_by_count_without_overlap() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 1900, (300, 2))
    cells = [Cell((x, y, x + 40, y + 40), "NILM", 0.9) for x, y in corners.tolist()]
    counts = {"HSIL": 4, "LSIL": 9}
    wanted, spare = edits.dealt(cells, (2000, 2000), EditSettings(box_scale=2.0), counts, "random", 3)
    categories = [one.edit.category for one in wanted]
    assert {name: categories.count(name) for name in counts} == counts and len(spare) == 39
    regions = [one.edit.box for one in (*wanted, *spare)]
    for number, a in enumerate(regions):
        for b in regions[:number]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    few, _ = edits.dealt(cells[:6], (2000, 2000), EditSettings(), counts, "random", 3)
    assert [one.edit.category for one in few].count("HSIL") == 4  # rare ones first


class Doubtful(torch.nn.Module):
    """Finds two cells in every tile; both also as another category, one of them with a higher score."""

    def __init__(self) -> None:
        super().__init__()
        self.place = torch.nn.Parameter(torch.tensor([[100.0, 100, 120, 120], [101, 100, 121, 120],
                                                      [300, 100, 320, 120], [301, 100, 321, 120]]))  # fmt: skip

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        labels, scores = torch.tensor([1, 2, 1, 2]), torch.tensor([0.6, 0.9, 0.8, 0.7])
        return [{"boxes": self.place.detach(), "labels": labels, "scores": scores} for _ in images]


def test_a_nucleus_that_is_found_as_abnormal_is_not_edited_as_normal(tmp_path: Path) -> None:
    detector = Detector(Doubtful(), DetectorConfig(backbone="small", categories=("NILM", "LSIL")), "d")
    pixels = MappedArray(tmp_path / "pixels", (400, 500, 3), np.uint8)
    wanted, spare = stage2._found(
        Work.of(tmp_path), pixels, settings(500, 400, counts={"HSIL": 2}), SimpleNamespace(detector=detector)
    )
    assert [one.cell.box for one in (*wanted, *spare)] == [(300.0, 100.0, 320.0, 120.0)]


def test_pyramids_are_read_alike_by_every_reader(tmp_path: Path) -> None:
    tiffslide, pyvips = (pytest.importorskip(name) for name in ("tiffslide", "pyvips"))
    small = np.random.default_rng(0).integers(90, 250, (65, 75, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(small).resize((1500, 1300), Image.Resampling.BICUBIC))
    levels = [MappedArray(tmp_path / "0", (1300, 1500, 3), np.uint8)]
    levels[0].array[:] = pixels
    for number, (width, height) in enumerate(sizes(1500, 1300)[1:], 1):
        levels.append(MappedArray(tmp_path / str(number), (height, width, 3), np.uint8))
        reduce(levels[-2], levels[-1])
    assert np.array_equal(levels[1].array, (pixels.reshape(650, 2, 750, 2, 3).mean(axis=(1, 3)) + 0.5).astype(np.uint8))
    for kind, most in (("lossless", 0), ("jpeg", 3)):
        path = tmp_path / f"{kind}.tif"
        with meter("", 1) as bar:
            write(path, levels, FileSettings(kind, 95, 0.49, "A synthetic slide"), bar)  # type: ignore[arg-type]
        assert struct.unpack("<2sH", path.read_bytes()[:4]) == (b"II", 43)  # BigTIFF
        slide, tiff = openslide.OpenSlide(str(path)), tiffslide.TiffSlide(path)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.49, rel=1e-6)
        assert slide.properties["openslide.comment"] == "A synthetic slide"
        assert slide.level_count == tiff.level_count == len(levels) == 2
        for number, level in enumerate(levels):
            size = (level.array.shape[1], level.array.shape[0])
            by_openslide = np.asarray(slide.read_region((0, 0), number, size).convert("RGB")).astype(int)
            by_tiffslide = tiff.read_region((0, 0), number, size, as_array=True)[..., :3]
            by_vips = pyvips.Image.new_from_file(str(path), page=number).numpy()[..., :3]
            for other in (by_tiffslide, by_vips):
                assert np.abs(by_openslide - other).max() <= most
            assert np.abs(by_openslide - level.array).mean() <= most / 2
        with tifffile.TiffFile(path) as file:
            assert b"trainedAlgorithmicMedia" in bytes(file.pages[0].tags[700].value)


def test_ome_tiff_has_its_levels_in_subifds(tmp_path: Path) -> None:
    levels = [MappedArray(tmp_path / str(side), (side, side + 100, 3), np.uint8) for side in (1200, 600)]
    levels[0].array[:] = np.random.default_rng(0).integers(0, 255, (1200, 1300, 3))
    levels[1] = MappedArray(tmp_path / "half", (600, 650, 3), np.uint8)
    reduce(*levels)
    with meter("", 1) as bar:
        write(tmp_path / "a.ome.tif", levels, FileSettings("lossless", 90, 0.49, "A synthetic slide"), bar, ome=True)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert file.is_ome and len(file.pages) == 1 and len(file.series[0].levels) == 2
        assert "A synthetic slide" in file.ome_metadata
        assert np.array_equal(file.series[0].levels[1].asarray(), levels[1].array)
    with reader.opened(tmp_path / "a.ome.tif") as slide:
        assert slide.mpp == pytest.approx(0.49)
        assert np.array_equal(slide.pyramid.read(1, 5, 7, 100, 90), levels[1].array[7:97, 5:105])


@pytest.mark.slow
def test_a_slide_is_made_and_stopped_anywhere_ends_the_same(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = settings(counts={"HSIL": 3, "LSIL": 2}, ome=True)
    straight = made(tiny, tmp_path / "a", wanted)
    with reader.opened(tmp_path / "a" / "slide.tif") as slide:
        assert slide.size == (300, 280)
        edited = slide.pyramid.read(0, 0, 0, 300, 280).astype(int)
    content = json.loads(straight["annotations.json"])
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    assert sorted(names[cell["category_id"]] for cell in content["annotations"]) == ["HSIL"] * 3 + ["LSIL"] * 2
    assert len(json.loads(straight["slide.geojson"])["features"]) == 5
    assert not (tmp_path / "a" / ".work").exists()
    made(tiny, tmp_path / "plain", settings())
    with reader.opened(tmp_path / "plain" / "slide.tif") as slide:
        changed = np.abs(slide.pyramid.read(0, 0, 0, 300, 280).astype(int) - edited).max(axis=2) > 0
    records = [json.loads(line) for line in straight["provenance.jsonl"].splitlines()]
    for record in records:
        x0, y0, x1, y1 = map(int, record["edited_xyxy"])
        assert changed[y0:y1, x0:x1].any()
        changed[y0:y1, x0:x1] = False
    assert not changed.any()  # not a bit outside the regions

    advance: Callable[..., None] = Meter.advance
    stops = {"denoising": 14, "decoding": 1, "editing cells": 3, "writing": 1}
    for title, number in stops.items():
        seen = 0

        def stopping(self: Meter, *given: object, title: str = title, number: int = number, **named: object) -> None:
            nonlocal seen
            seen += self.title == title
            if self.title == title and seen == number:
                raise KeyboardInterrupt
            advance(self, *given, **named)

        monkeypatch.setattr(Meter, "advance", stopping)
        with pytest.raises(KeyboardInterrupt):
            made(tiny, tmp_path / "b", wanted)
    monkeypatch.setattr(Meter, "advance", advance)
    assert made(tiny, tmp_path / "b", wanted) == straight
    assert made(tiny, tmp_path / "b", wanted) == straight  # finished already
    with pytest.raises(UsageError, match="use another folder"):
        made(tiny, tmp_path / "b", settings(density_map="disc"))

    (tmp_path / "plan.json").write_bytes(straight["plan.json"])
    again = made(tiny, tmp_path / "c", settings(ome=True), tmp_path / "plan.json")
    assert again["slide.tif"] == straight["slide.tif"]

    commands.edit_slide(
        tmp_path / "plain" / "slide.tif", tmp_path / "d", wanted.pipeline, foundation=str(tiny / "foundation"),
        cell=str(tiny / "cell"), detector=str(tiny / "detector"),
    )  # fmt: skip
    own = json.loads((tmp_path / "d" / "annotations.json").read_text())
    assert len(own["annotations"]) == 5 and own["images"][0]["original"] == "slide.tif"
    with tifffile.TiffFile(tmp_path / "d" / "slide.tif") as file:
        assert file.pages[0].description.startswith("Real cervical cytology")


@pytest.mark.slow
def test_a_slide_made_in_parts_is_that_made_at_once(tiny: Path, tmp_path: Path) -> None:
    """No minute at all is one part a call: a step, a row of tiles, a batch of cells."""
    wanted = settings(counts={"HSIL": 3})
    parts = 0
    while not (tmp_path / "parts" / "README.md").exists():
        try:
            made(tiny, tmp_path / "parts", wanted, max_minutes=0)
        except Paused:
            parts += 1
            assert parts < 30
    assert parts >= 3 + 1 + 2, "steps, rows, batches of two cells"
    straight = made(tiny, tmp_path / "once", wanted)
    assert {path.name: path.read_bytes() for path in (tmp_path / "parts").iterdir() if path.is_file()} == straight


def test_a_slide_of_empty_glass_is_even(tiny: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 40), dtype=np.uint8)).save(tmp_path / "black.png")
    made(tiny, tmp_path / "out", settings(density_map=str(tmp_path / "black.png")))
    with reader.opened(tmp_path / "out" / "slide.tif") as slide:
        pixels = slide.pyramid.read(0, 0, 0, 300, 280)
    assert pixels[40:-40, 40:-40].reshape(-1, 3).std(axis=0).max() < 25  # of an untrained decoder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["normal.sampler=dpm++2m"], "--sampler dpm\\+\\+2m: needs earlier steps"),
        (["cell.paste=patch"], "cell.paste=patch"),
        (["normal.size=512"], "300x280: smaller than one field \\(512\\)"),
        (["choice=isolation"], "choice=isolation"),
    ],
)
def test_what_no_slide_can_be_is_refused_at_once(changes: list[str], said: str) -> None:
    wanted = settings()
    wanted = wanted.model_copy(update={"pipeline": override(wanted.pipeline, changes)})
    with pytest.raises(UserError, match=said):
        wanted.check()
