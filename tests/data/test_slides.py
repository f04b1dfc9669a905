"""Reading whole slides: pyramids, scale, glass, tiles, every cell once, fields with their annotations."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from typer.testing import CliRunner

from cytosynth.annotations import Cell
from cytosynth.cli import app
from cytosynth.cli import tiles as _command  # noqa: F401
from cytosynth.data import check, convert, sources
from cytosynth.data.slides import annotations, fields, glass, reader, sharpness
from cytosynth.data.slides.openslide_pyramid import OpenSlidePyramid
from cytosynth.data.slides.slide import SlideProblem, View
from cytosynth.data.slides.tiff_pyramid import TiffPyramid
from cytosynth.detection import folder, tiles
from cytosynth.detection import tiled_search as search
from cytosynth.errors import UsageError, UserError
from slide_files import GLASS, Discs, discs, matched, write_pixels, write_slide

pytest.importorskip("openslide", reason="the extra 'slides' is not installed")
STEP, TILE = 896, 1024
"""Of the detector's tiles."""


def noise(height: int = 300, width: int = 410) -> np.ndarray:
    """A smooth random image."""
    small = np.random.default_rng(0).integers(60, 250, (height // 10, width // 10, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("ome", [False, True])
def test_pyramids_are_read_at_the_scale_asked_for(tmp_path: Path, ome: bool) -> None:
    pixels = noise()
    path = write_pixels(tmp_path / ("a.ome.tif" if ome else "a.tif"), pixels, 0.245, ome)
    with reader.opened(path) as slide:
        assert slide.mpp == pytest.approx(0.245, rel=1e-6)
        assert [(one.width, one.height) for one in slide.pyramid.levels] == [(410, 300), (205, 150)]
        full, half = slide.at(0.245), slide.at(0.49)
        assert np.array_equal(full.read(37, 21, 200, 111), pixels[21:132, 37:237])
        assert half.size == (205, 150)
        assert np.array_equal(half.read(100, 60, 90, 80), pixels[::2, ::2][60:140, 100:190])


def test_a_pixel_does_not_depend_on_the_region_with_which_it_is_read(tmp_path: Path) -> None:
    path = write_pixels(tmp_path / "a.tif", noise(), 0.31)
    with reader.opened(path) as slide:
        view = slide.at(0.49)
        width, height = view.size
        whole = view.read(0, 0, width, height)
        by_pillow = Image.fromarray(noise()).resize(
            (width, height), Image.Resampling.LANCZOS, box=(0, 0, width * view.factor, height * view.factor)
        )
        assert np.array_equal(whole, np.asarray(by_pillow))
        for x, y, w, h in ((0, 0, 50, 60), (101, 77, 64, 33), (width - 40, height - 51, 40, 51)):
            part = view.read(x, y, w, h).astype(int)
            assert np.abs(part - whole[y : y + h, x : x + w]).max() <= 1  # float32 coefficients of another origin


def test_what_is_a_slide_and_what_is_an_image(tmp_path: Path) -> None:
    pyramid = write_pixels(tmp_path / "slide.tif", noise())
    Image.fromarray(noise()).save(tmp_path / "image.tif")
    assert reader.is_slide(pyramid)
    assert not reader.is_slide(tmp_path / "image.tif")
    assert reader.is_slide(tmp_path / "other.SVS")
    assert reader.gather(tmp_path) == [pyramid]
    with pytest.raises(UserError, match=r"image\.tif: not a slide"):
        reader.gather(tmp_path / "image.tif")


def test_mpp_is_asked_for_where_the_file_does_not_say(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", (600, 600), [], mpp=None, levels=2)
    with pytest.raises(UsageError, match="give --mpp"), reader.opened(path):
        pass
    with pytest.raises(UsageError, match=r"--mpp 40: must be between 0\.05 and 5"), reader.opened(path, 40):
        pass
    with reader.opened(path, 0.5) as slide:
        assert slide.mpp == 0.5
    with reader.opened(path, 1.5) as slide, pytest.raises(SlideProblem, match="too coarse"):
        slide.at()


def test_broken_slides_are_named(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", (2000, 2000), [(700.0, 700.0, 300.0)], levels=2)
    content = bytearray(path.read_bytes())
    for name, broken in {
        "cut.tif": content[: len(content) // 3], "none.svs": b"nothing", "void.tif": b"",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(bytes(broken))
        with pytest.raises(SlideProblem, match=name), reader.opened(tmp_path / name, 0.49) as slide:
            slide.at().read(0, 0, *slide.at().size)
    with pytest.raises(SlideProblem, match="no such file"), reader.opened(tmp_path / "absent.svs"):
        pass


def test_empty_glass_is_found_and_a_single_cell_is_not_lost(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", (4096, 4096), [(3000.0, 1200.0, 6.0)])
    with reader.opened(path) as slide:
        covered = glass.coverage(slide.at())
        assert covered.any(2990, 1190, 20, 20)
        assert not covered.any(0, 0, 2900, 4096)
        assert covered.empty > 0.999
        assert glass.glass_colour(slide.thumbnail(256).whole()).tolist() == list(GLASS)


def planted(size: int) -> list[tuple[float, float, float]]:
    """Cells at every kind of border of tiles of 1024 that share 128, none nearer than 30 pixels to another."""
    rng = np.random.default_rng(5)
    edges = [STEP * k for k in range(1, size // STEP)]
    on_edge = [edges[2], edges[2] + TILE - STEP, edges[2] + 64, edges[3] - 3, edges[3] + 131]
    places: list[tuple[float, float, float]] = []
    for number, x in enumerate(on_edge):  # left and right edges, and corners of up to four tiles
        places += [(x, 150 + 70 * number, 9), (x, on_edge[number], 11), (edges[5] + 200 + 70 * number, x, 8)]
    places += [(x, edges[4] + d, 10) for x in edges[:6] for d in (0, 64, 128)]
    places += [(8, 1500, 8), (size - 8, 700, 8), (2500, 8, 8), (1400, size - 8, 8), (9, 9, 9), (size - 9, size - 9, 9)]
    places += [(edges[6] + 20, edges[7] + 300, 150), (edges[7] + 500, edges[8] + 60, 140)]  # wider than tiles share
    taken = [(float(x), float(y), float(r)) for x, y, r in places]
    for _ in range(3000):
        x, y = rng.uniform(40, size - 40, 2).round()
        if all(max(abs(x - a), abs(y - b)) > r + 40 for a, b, r in taken) and len(taken) < 200:
            taken.append((float(x), float(y), float(rng.integers(5, 14))))
    return taken


@pytest.mark.slow
def test_every_cell_counts_once_at_slide_size(tmp_path: Path) -> None:
    size = 12_000
    cells = planted(size)
    path = write_slide(tmp_path / "a.tif", (size, size), cells)
    with reader.opened(path) as slide:
        view = slide.at()
        look = search.Search(discs(), 0.5, "a")
        found = search.find(view, glass.coverage(view), look, tmp_path / "a.jsonl", "a")
    ordinary = [cell for cell in cells if cell[2] < 60]
    small = [cell.box for cell in found if max(cell.size) < 100]
    assert matched(small, ordinary, 1.0) == [1] * len(ordinary)
    wide = [cell for cell in found if max(cell.size) >= 100]
    assert len(wide) == 2  # cut by every tile, and still once each


def test_groups_of_boxes_that_touch_are_joined_as_all_together() -> None:
    rng = np.random.default_rng(3)
    size, side = 2816, 1024
    corners = [(x, y) for y in range(0, size - side + 1, STEP) for x in range(0, size - side + 1, STEP)]
    truth = np.concatenate([rng.uniform(0, size - 300, (300, 2)), rng.uniform(8, 220, (300, 2))], axis=1)
    seen = []
    for x, y in corners:
        boxes = np.concatenate([truth[:, :2], truth[:, :2] + truth[:, 2:]], axis=1) + rng.normal(0, 2, (300, 4))
        boxes = np.clip(boxes, (x, y, x, y), (x + side, y + side, x + side, y + side))
        kept = torch.from_numpy(boxes[(boxes[:, 2:] - boxes[:, :2]).min(axis=1) > 3]).round()
        scores = torch.from_numpy(rng.uniform(0.3, 1, len(kept))).round(decimals=6)
        seen.append(tiles.Seen(kept, torch.randint(1, 3, (len(kept),)), scores, (x, y, x + side, y + side)))
    boxes, labels, scores = tiles.joined(seen, size, size)
    together = {(tuple(b), int(n), s) for b, n, s in zip(boxes.tolist(), labels, scores.tolist(), strict=True)}
    apart = {(box, label, score) for box, label, score in search.joined(seen, size, size)}
    assert apart == together
    assert len(together) > 200


def test_one_nucleus_is_one_cell_of_its_most_certain_category() -> None:
    """As `tiles.most_certain`, which compares all cells with all, whatever square the boxes lie in."""
    rng = np.random.default_rng(0)
    corners, sides = rng.uniform(0, 1500, (600, 2)), rng.uniform(20, 90, (600, 2))
    scores = np.sort(rng.uniform(0.3, 1, 600))[::-1]
    names = rng.choice(["NILM", "LSIL", "HSIL"], 600)
    moved = np.where(rng.random(600) < 0.5, rng.integers(0, 600, 600), np.arange(600))
    cells = [
        Cell((x, y, x + width, y + height), str(name), float(score))
        for (x, y), (width, height), name, score in zip(corners[moved], sides[moved], names, scores, strict=True)
    ]
    kept = search.most_certain(cells)
    assert kept == tiles.most_certain(cells)
    assert 300 < len(kept) < 550
    assert search.most_certain([]) == []


def test_a_stopped_search_continues_and_ends_the_same(tmp_path: Path) -> None:
    cells = [(x, y, 9.0) for x in (300.0, 896.0, 1000.0, 2700.0, 4400.0) for y in (500.0, 1792.0, 1900.0, 4480.0)]
    path = write_slide(tmp_path / "a.tif", (4500, 4500), cells)
    detector = discs()
    assert isinstance(detector.network, Discs)
    with reader.opened(path) as slide:
        view = slide.at()
        look = search.Search(detector, 0.5, "a")
        straight = search.find(view, None, look, tmp_path / "straight.jsonl", "a")
        whole, detector.network.seen, detector.network.stop_after = detector.network.seen, 0, 7
        with pytest.raises(KeyboardInterrupt):
            search.find(view, None, look, tmp_path / "stopped.jsonl", "a")
        detector.network.stop_after, detector.network.seen = None, 0
        again = search.find(view, None, look, tmp_path / "stopped.jsonl", "a")
        assert detector.network.seen == whole - 7
        search.find(view, None, replace(look, identity="another slide"), tmp_path / "stopped.jsonl", "a")
        assert detector.network.seen == 2 * whole - 7  # nothing of another slide is taken over
    assert again == straight
    assert (tmp_path / "straight.jsonl").read_bytes() != b""


def test_sharpness_falls_with_blur_and_not_with_contrast() -> None:
    rng = np.random.default_rng(0)
    pixels = np.full((512, 512, 3), GLASS, dtype=np.uint8)
    ys, xs = np.mgrid[:512, :512]
    for number in range(20):
        x, y = 40 + 110 * (number % 4), 40 + 90 * (number // 4)
        pixels[(xs - x) ** 2 + (ys - y) ** 2 <= int(rng.integers(5, 10)) ** 2] = (60, 45, 95)
    blurred = np.asarray(Image.fromarray(pixels).resize((171, 171)).resize((512, 512), Image.Resampling.BICUBIC))
    pale = (GLASS - (GLASS - pixels.astype(float)) * 0.6).astype(np.uint8)
    sharp = sharpness.focus(pixels)
    assert sharpness.focus(blurred) < 0.75 * sharp
    assert sharpness.focus(pale) == pytest.approx(sharp, rel=0.05)
    assert sharpness.nuclei(pixels, np.array(GLASS, dtype=np.int16)) == 20
    assert sharpness.focus(np.full((64, 64, 3), 200, dtype=np.uint8)) == 0


def geojson(path: Path, outlines: list[tuple[str | None, list[list[float]]]]) -> None:
    features = [
        {
            "type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"objectType": "annotation"} | ({"classification": {"name": name}} if name else {}),
        }
        for name, ring in outlines
    ]  # fmt: skip
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def square(x: float, y: float, r: float) -> list[list[float]]:
    return [[x - r, y - r], [x + r, y - r], [x + r, y + r], [x - r, y + r], [x - r, y - r]]


def test_fields_are_cut_with_their_annotations(tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    cells = [(300.0, 300.0, 10.0), (2048.0 + 30, 500.0, 10.0), (1000.0, 1500.0, 12.0), (3000.0, 3000.0, 10.0)]
    write_slide(slides / "s1.tif", (4096, 4096), cells, mpp=0.245)
    outlines = [("HSIL", square(x, y, 20)) for x, y, _ in cells[:2]]
    outlines += [("LSIL", square(2048 + 4, 1500, 20)), (None, square(1000, 1500, 20)), ("ROI", square(900, 900, 850))]
    geojson(slides / "s1.geojson", outlines)
    settings = fields.FieldSettings(side=512, min_nuclei=0, min_focus=0)
    data = fields.tiles(slides, tmp_path / "out", settings)
    by_place = {(p.extra["slide_x"], p.extra["slide_y"]): p for p in data.images}
    # 4096 at 0.245 is 2048 at 0.49: fields of 512 begin every 1024 pixels of level 0
    assert set(by_place) == {(0, 0), (2048, 0), (0, 1024), (1024, 1024), (2048, 1024), (2048, 2048)}
    first = by_place[0, 0].cells
    assert [(cell.category, cell.box) for cell in first] == [("HSIL", (140, 140, 160, 160))]
    assert [cell.box for cell in by_place[2048, 0].cells] == [(5, 240, 25, 260)]
    cut, seen = by_place[1024, 1024].cells[0], by_place[2048, 1024].cells[0]
    assert cut.crowd and not seen.crowd and cut.category == seen.category == "LSIL"
    assert seen.box == (0, 228, 12, 248)
    assert set(data.categories) == {"HSIL", "LSIL"}  # a region of 850 pixels is no cell
    image = np.asarray(Image.open(data.path(by_place[0, 0])))
    with reader.opened(slides / "s1.tif") as slide:
        assert np.array_equal(image, View(slide, 2.0).read(0, 0, 512, 512))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out" / "images").iterdir()}
    (tmp_path / "out" / "images" / min(before)).unlink()
    fields.tiles(slides, tmp_path / "out", settings)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out" / "images").iterdir()} == before
    with pytest.raises(UsageError, match="was started with side=512, now 256"):
        fields.tiles(slides, tmp_path / "out", settings.model_copy(update={"side": 256}))
    only = settings.model_copy(update={"only_annotated": True, "per_slide": 2})
    assert len(fields.tiles(slides, tmp_path / "two", only).images) == 2


def test_fields_of_another_slide_of_the_same_name_are_not_kept(tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    settings = fields.FieldSettings(side=256, min_nuclei=0, min_focus=0)
    write_slide(slides / "s.tif", (600, 600), [(200.0, 200.0, 10.0)], levels=2)
    write_slide(slides / "s_1.tif", (600, 600), [(200.0, 200.0, 10.0)], levels=2)
    fields.tiles(slides, tmp_path / "out", settings)
    other = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/images").glob("s_1_*")}
    write_slide(slides / "s.tif", (600, 600), [(100.0, 220.0, 20.0)], levels=2)
    fields.tiles(slides, tmp_path / "out", settings)
    fields.tiles(slides, tmp_path / "fresh", settings)
    assert other and all((tmp_path / "out/images" / name).stat().st_mtime_ns == at for name, at in other.items())
    for path in (tmp_path / "fresh/images").iterdir():
        assert (tmp_path / "out/images" / path.name).read_bytes() == path.read_bytes(), path.name


def test_all_slides_of_a_patient_are_in_one_part(tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    for number in range(6):
        write_slide(slides / f"s{number}.tif", (600, 600), [(200.0, 200.0, 10.0)], levels=2)
    (tmp_path / "patients.csv").write_text("slide,patient\n" + "".join(f"s{n}.tif,p{n // 3}\n" for n in range(6)))
    settings = fields.FieldSettings(side=256, min_nuclei=1, min_focus=0)
    fields.tiles(slides, tmp_path / "out", settings, patients=tmp_path / "patients.csv")
    parts = json.loads((tmp_path / "out" / "split.json").read_text())
    options = f"--side 256 --min-nuclei 1 --min-focus 0 --patients {tmp_path}/patients.csv"
    ended = CliRunner().invoke(app, ["tiles", str(slides), str(tmp_path / "again"), *options.split()])
    assert f"parts: {', '.join(f'{name} {len(names)}' for name, names in parts.items())}" in ended.output
    empty = [name for name in ("val", "test") if not parts[name]]
    assert empty and ended.output.count("warning: no image in part") == len(empty), "two patients, three parts"
    where = {name[:2]: part for part, names in parts.items() for name in names}
    assert len(where) == 6
    assert where["s0"] == where["s1"] == where["s2"] and where["s3"] == where["s4"] == where["s5"]
    (tmp_path / "patients.csv").write_text("slide,patient\ns0,p\n")
    with pytest.raises(UserError, match="no patient for the slide 's1'"):
        fields.tiles(slides, tmp_path / "other", settings, patients=tmp_path / "patients.csv")


def test_annotations_of_slides_are_read_strictly(tmp_path: Path) -> None:
    slide = tmp_path / "s1.svs"
    content = {
        "images": [{"id": 1, "file_name": "s1.svs", "width": 90, "height": 90}],
        "categories": [{"id": 1, "name": "HSIL"}],
    }
    (tmp_path / "annotations.json").write_text(
        json.dumps(content | {"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 6, 7, 8]}]})
    )
    found = annotations.find(slide, None, 0.25)
    assert found is not None and [cell.box for cell in found.cells] == [(5, 6, 12, 14)]
    assert annotations.find(tmp_path / "s2.svs", None, 0.25) is None
    with pytest.raises(UserError, match=r"no image named s2\.svs"):
        annotations.find(tmp_path / "s2.svs", tmp_path / "annotations.json", 0.25)
    for text in (
        "[",
        '{"features": 3}',
        '{"features": [{"properties": {}, "geometry": {"coordinates": [[["a", 1]]]}}]}',
    ):
        (tmp_path / "bad.geojson").write_text(text)
        with pytest.raises(UserError, match=r"bad\.geojson"):
            annotations.find(slide, tmp_path / "bad.geojson", 0.25)


def test_labels_macro_images_and_patient_tags_are_never_read_out(tmp_path: Path) -> None:
    """A slide as scanners write it: label and macro in further pages, the patient in the description."""
    pixels, secret = noise(600, 700), "DOE^JANE 1950-01-01 S23-4711"
    options = {"photometric": "rgb", "compression": "deflate", "resolutionunit": "CENTIMETER"}
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.tif"
    red = np.full((400, 300, 3), (255, 0, 0), np.uint8)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        tiled = options | {"tile": (256, 256), "metadata": None}
        file.write(pixels, resolution=(1e4 / 0.49,) * 2, description=f"PatientName={secret}", **tiled)
        file.write(pixels[::2, ::2], resolution=(5e3 / 0.49,) * 2, subfiletype=1, **tiled)
        file.write(red, subfiletype=1, description=f"label {secret}", metadata=None, **options)
        file.write(red[:, ::2], subfiletype=9, description=f"macro {secret}", metadata=None, **options)
    for pyramid in (TiffPyramid(path), OpenSlidePyramid(path)):
        assert [(level.width, level.height) for level in pyramid.levels] == [(700, 600), (350, 300)]
        pyramid.close()
    folder.detect(folder.gather(tmp_path / "in"), tmp_path / "found", discs())
    fields.tiles(tmp_path / "in", tmp_path / "fields", fields.FieldSettings(side=512, min_nuclei=0, min_focus=0))
    written = [file for name in ("found", "fields") for file in (tmp_path / name).rglob("*") if file.is_file()]
    assert len([file for file in written if file.suffix == ".png"]) >= 2
    for file in written:
        assert b"JANE" not in file.read_bytes() and b"S23-4711" not in file.read_bytes(), file
        if file.suffix == ".png":
            shown = np.asarray(Image.open(file).convert("RGB")).astype(int)
            assert not ((shown[..., 0] > 250) & (shown[..., 1:] < 5).all(axis=2)).sum() > 100, f"{file}: the label"


def test_detect_writes_slides_in_their_own_pixels(tmp_path: Path) -> None:
    cells = [(700.0, 500.0, 18.0), (1792.0, 1800.0, 20.0), (40.0, 1990.0, 20.0)]  # the second at a tile's border
    (tmp_path / "in").mkdir()
    path = write_slide(tmp_path / "in" / "a.tif", (2600, 2400), cells, mpp=0.245)
    Image.fromarray(noise()).save(tmp_path / "in" / "b.png")
    found = folder.gather(tmp_path / "in")
    data = folder.detect(found, tmp_path / "out", discs())
    slide = data.images[0]
    assert (slide.file_name, slide.width, slide.height) == ("a.tif", 2600, 2400)
    assert slide.extra["mpp"] == pytest.approx(0.245) and slide.extra["empty_glass"] > 0.9
    assert matched([cell.box for cell in slide.cells], cells, 3.0) == [1, 1, 1]
    content = json.loads((tmp_path / "out" / "qupath" / "a.tif.geojson").read_text())
    assert len(content["features"]) == 3
    properties = content["features"][0]["properties"]
    assert properties["objectType"] == "detection" and properties["classification"]["name"] == "NILM"
    assert properties["measurements"]["Box area µm^2"] == pytest.approx((36 * 0.245) ** 2, rel=0.01)
    thumbnail = np.asarray(Image.open(tmp_path / "out" / "pictures" / "a.tif.png"))
    assert max(thumbnail.shape) <= 2048
    before = {name: (tmp_path / "out" / name).read_bytes() for name in ("annotations.json", "qupath/a.tif.geojson")}
    (tmp_path / "out" / "qupath" / "a.tif.geojson").unlink()
    again = discs()
    folder.detect(found, tmp_path / "out", again)
    assert isinstance(again.network, Discs) and again.network.seen == 0
    assert {name: (tmp_path / "out" / name).read_bytes() for name in before} == before
    broken = tmp_path / "in" / "c.svs"
    broken.write_bytes(path.read_bytes()[:3000])
    skipped = folder.detect(folder.gather(tmp_path / "in"), tmp_path / "other", discs()).info["skipped"]
    assert len(skipped) == 1 and skipped[0].startswith("c.svs")


def test_slides_are_checked_converted_and_trained_on(tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    cells = [(700.0, 500.0, 18.0), (3000.0, 3500.0, 20.0)]
    write_slide(slides / "s1.tif", (4200, 4200), cells, mpp=0.245)
    geojson(slides / "s1.geojson", [("HSIL", square(700, 500, 24))])
    said: list[str] = []
    assert check.check(slides, None, said.append) == []
    assert said[0] == "slides, 1 image, 1 cell" and said[1].endswith("(no split.json): train 0, val 0, test 1")
    convert.convert(slides, tmp_path / "yolo", None, "yolo")
    names = sorted(path.name for path in (tmp_path / "yolo" / "images").iterdir())
    assert names == ["s1_0_0.png", "s1_2048_2048.png"]
    assert (tmp_path / "yolo" / "labels" / "s1_0_0.txt").read_text().startswith("0 0.3")
    samples = sources.load([sources.Source(root="slides", split="all")], tmp_path)
    assert [(sample.name, sample.size) for sample in samples] == [("s1_0_0", (1024, 1024))]
    assert samples[0].cells[0].category == "HSIL"
    assert samples[0].cells[0].box == pytest.approx((338, 238, 362, 262), abs=0.5)
    assert np.array_equal(samples[0].pixels, np.asarray(Image.open(tmp_path / "yolo" / "images" / "s1_0_0.png")))
    geojson(slides / "s1.geojson", [("HSIL", square(5000, 500, 24))])
    assert "outside the image of 4200x4200" in check.check(slides)[0]
    (slides / "broken.svs").write_bytes(b"no slide")
    assert any("broken.svs" in line for line in check.check(slides))
