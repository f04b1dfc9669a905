"""Shards: each a data set of its own; together the bytes of the undivided run."""

import json
import shutil
from pathlib import Path

import pytest

import killing
from conftest import write_fields
from cytosynth.bethesda import ABNORMAL, NILM
from cytosynth.config import override
from cytosynth.data import shard as shards
from cytosynth.data.check import check
from cytosynth.data.formats import coco, coco_parts
from cytosynth.data.shard import Shard
from cytosynth.detection import folder
from cytosynth.detection import model as detectors
from cytosynth.errors import UsageError, UserError
from cytosynth.io import atomic, tensors
from cytosynth.scale.merge import merge
from cytosynth.synthesis import models as loading
from cytosynth.synthesis import synthesize
from cytosynth.synthesis.settings import PipelineSettings

SETTINGS = ["normal.size=256", "normal.steps=2", "cell.steps=2", "threshold=0.1", "cell.box_scale=1.2", "max_cells=3"]


def chosen(*changes: str) -> PipelineSettings:
    return override(PipelineSettings(seed=5), [*SETTINGS, *changes])


def models(tiny: Path, *names: str) -> dict[str, str]:
    return {name: str(tiny / name) for name in names or ("foundation", "normal", "cell", "detector")}


def content(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def made(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undivided run `whole` of five images, and its shards `1` and `2`."""
    root = tmp_path_factory.mktemp("shards")
    synthesize.synthesize(root / "whole", count=5, settings=chosen(), **models(tiny))
    for number in (2, 1):
        synthesize.synthesize(root / str(number), count=5, settings=chosen(), shard=Shard(number, 2), **models(tiny))
    return root


def test_merged_shards_are_the_bytes_of_the_undivided_run(made: Path, tiny: Path, tmp_path: Path) -> None:
    merge(tmp_path / "out", [made / "2", made / "1"])
    assert content(tmp_path / "out") == content(made / "whole")
    assert check(made / "1") == []
    assert [image.file_name for image in coco.read(made / "1").images] == ["000000.png", "000002.png", "000004.png"]
    assert "Shard 1/2" in (made / "1/README.md").read_text()
    # Killed on the way, the same command goes on with what is missing.
    for name in ("images/000003.png", "annotations.json", "provenance.jsonl", "README.md"):
        (tmp_path / "out" / name).unlink()
    merge(tmp_path / "out", [made / "1", made / "2"])
    assert content(tmp_path / "out") == content(made / "whole")
    before = content(made / "1")
    synthesize.synthesize(made / "1", count=5, settings=chosen(), shard=Shard(1, 2), **models(tiny))
    assert content(made / "1") == before


def test_shards_from_before_cells_could_be_edited_into_nilm_are_merged(made: Path, tmp_path: Path) -> None:
    now = tmp_path / "now"
    shutil.copytree(made / "2", now)
    said = json.loads((now / shards.FILE).read_text())
    assert said["categories"] == list(ABNORMAL)
    (now / shards.FILE).write_text(json.dumps(said | {"categories": [*ABNORMAL, NILM]}))
    for number, given in enumerate(([made / "1", now], [now, made / "1"])):
        merge(tmp_path / f"{number}", given)
        assert content(tmp_path / f"{number}") == content(made / "whole")
    (now / shards.FILE).write_text(json.dumps(said | {"categories": [*ABNORMAL, "SCC"]}))
    with pytest.raises(UserError, match=r"now: made for the categories ASC-US, .*, SCC, .*1 for ASC-US, .*, HSIL;"):
        merge(tmp_path / "no", [made / "1", now])
    assert not (tmp_path / "no").exists(), "refused before anything is written"


def test_shards_of_sets_with_other_descriptions_are_refused_before_anything_is_written(
    made: Path, tmp_path: Path
) -> None:
    two = tmp_path / "two"
    shutil.copytree(made / "2", two)
    values = json.loads((two / "annotations.json").read_text())
    values["info"]["derived_from"] = {"description": "another set"}
    (two / "annotations.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"two: edited from a set with other licences or another description than .*1$"):
        merge(tmp_path / "out", [made / "1", two])
    assert not (tmp_path / "out").exists()


def remade(shard: Path, name: str, copy: Path) -> bytes:
    """Copy a finished `shard`, whose image `name` now has other bytes; return these."""
    shutil.copytree(shard, copy)
    (copy / name).write_bytes(other := (shard / name).read_bytes() + b"another")
    sums = (copy / "shard.sha256").read_text()
    (copy / "shard.sha256").write_text(sums.replace(atomic.sha256(shard / name), atomic.digest(other)))
    return other


def test_images_of_a_remade_shard_replace_those_that_were_merged_before(made: Path, tmp_path: Path) -> None:
    out, name = tmp_path / "out", "images/000001.png"
    merge(out, [made / "1", made / "2"])
    other = remade(made / "2", name, tmp_path / "two")
    merge(out, [made / "1", tmp_path / "two"])
    assert (out / name).read_bytes() == other
    assert (out / "images/000003.png").read_bytes() == (made / "2/images/000003.png").read_bytes()
    (out / "images/000009.png").write_bytes(other)
    with pytest.raises(UserError, match=r"out: contains 000009.png, which is in none of the shards"):
        merge(out, [made / "1", made / "2"])


def test_what_does_not_belong_together_is_named(made: Path, tiny: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    shutil.copytree(made / "1", one)
    shutil.copytree(made / "2", two)
    with pytest.raises(UserError, match=r"^shards 2 of 2 are missing"):
        merge(tmp_path / "out", [one])
    with pytest.raises(UserError, match=r"copy: shard 1/2 is also in .*one; give it once"):
        shutil.copytree(one, tmp_path / "copy")
        merge(tmp_path / "out", [one, tmp_path / "copy", two])
    with pytest.raises(UserError, match=r"whole: not a shard \(shard.json is missing\)"):
        merge(tmp_path / "out", [made / "whole", two])
    said = json.loads((two / "shard.json").read_text())
    for changes, complaint in (
        ({"finished": False}, "two: shard 2/2 is not finished; run its command again"),
        ({"of": 3}, "two: not of the same run as .*one: one of 3 shards, the other of 2"),
        ({"run": "0" * 16}, "two: not of the same run as .*one: other images"),
        ({"skipped": {"1": "gone"}}, "two: shard 2/2 has 2 images, its share is 1"),
    ):
        (two / "shard.json").write_text(json.dumps(said | changes))
        with pytest.raises(UserError, match=complaint):
            merge(tmp_path / "out", [one, two])
    (two / "shard.json").write_text(json.dumps(said))
    settings = (two / "settings.yaml").read_text()
    (two / "settings.yaml").write_text(settings.replace("max_cells: 3", "max_cells: 4"))
    with pytest.raises(UserError, match=r"two: made with other settings or models than .*one"):
        merge(tmp_path / "out", [one, two])
    (two / "settings.yaml").write_text(settings)
    image = two / "images/000001.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=r"000001.png: its digest differs from shard.sha256"):
        merge(tmp_path / "out", [one, two])
    image.unlink()
    with pytest.raises(UserError, match=r"000001.png: no such file, but shard.sha256 lists it"):
        merge(tmp_path / "out", [one, two])
    image.write_bytes(whole)
    merge(tmp_path / "out", [one, two])
    assert content(tmp_path / "out") == content(made / "whole")


def test_a_folder_stays_the_shard_that_it_is(made: Path, tiny: Path, tmp_path: Path) -> None:
    def again(out: Path, shard: Shard | None, count: int = 5, *changes: str) -> None:
        synthesize.synthesize(out, count=count, settings=chosen(*changes), shard=shard, **models(tiny))

    with pytest.raises(UsageError, match="1: was started as shard 1/2, now 2/2"):
        again(made / "1", Shard(2, 2))
    with pytest.raises(UsageError, match=r"1: was started as shard 1/2 of other images \(5, now 7\)"):
        again(made / "1", Shard(1, 2), 7)
    with pytest.raises(UsageError, match="1: was started as shard 1/2; give --shard"):
        again(made / "1", None)
    with pytest.raises(UsageError, match="whole: was started without --shard"):
        again(made / "whole", Shard(1, 2))
    with pytest.raises(UsageError, match="--shard 1/2: --counts distributes cells over all images of a run"):
        again(tmp_path / "out", Shard(1, 2), 5, "counts={HSIL: 2}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", "1/1000000", "²/3"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match="--shard"):
        Shard.parse(text)


def test_shards_of_own_images_name_what_was_skipped_once_and_in_order(
    cytosynth: killing.Server, tiny: Path, tmp_path: Path
) -> None:
    write_fields(tmp_path / "drawn", 6)
    images = tmp_path / "drawn/images"
    for index in (2, 3):
        (images / f"field_{index}.png").write_bytes(b"no image")
    flags = [
        flag for name, path in models(tiny, "foundation", "cell", "detector").items() for flag in (f"--{name}", path)
    ]
    flags += [flag for setting in SETTINGS for flag in ("--set", setting)]
    for out, shard in (("whole", []), ("1", ["--shard", "1/3"]), ("2", ["--shard", "2/3"]), ("3", ["--shard", "3/3"])):
        answer = cytosynth.run("edit", str(images), str(tmp_path / out), *flags, *shard)
        assert answer.code == (0 if out == "2" else 4), answer.err
    answer = cytosynth.run("merge", str(tmp_path / "out"), *(str(tmp_path / number) for number in "312"))
    assert answer.code == 4, answer.err
    assert "2 images were skipped (field_2.png: not a readable image)" in answer.err
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_shards_of_detect(fields: Path, tiny: Path, tmp_path: Path) -> None:
    write_fields(tmp_path / "drawn", 5)
    (tmp_path / "drawn/images/field_3.png").write_bytes(b"no image")
    found, detector = folder.gather(tmp_path / "drawn"), detectors.load(tiny / "detector")
    folder.detect(found, tmp_path / "whole", detector, threshold=0.1)
    for number in (1, 2):
        folder.detect(found, tmp_path / str(number), detector, threshold=0.1, shard=Shard(number, 2))
    data = merge(tmp_path / "out", [tmp_path / "2", tmp_path / "1"])
    assert sum(len(image.cells) for image in data.images) > 4
    assert data.info["skipped"] == ["field_3.png: not a readable image"]
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    name = next(path.relative_to(tmp_path / "2").as_posix() for path in (tmp_path / "2").glob("pictures/*.png"))
    other = remade(tmp_path / "2", name, tmp_path / "remade")
    merge(tmp_path / "out", [tmp_path / "1", tmp_path / "remade"])
    assert (tmp_path / "out" / name).read_bytes() == other
    folder.detect(found, tmp_path / "other", detector, threshold=0.2, shard=Shard(2, 2))
    with pytest.raises(UserError, match="other: made with another detector or other settings"):
        merge(tmp_path / "x", [tmp_path / "1", tmp_path / "other"])


def test_annotations_and_records_in_parts_are_those_of_one_file(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coco_parts, "LARGEST", 4)
    monkeypatch.setattr(coco_parts, "IMAGES", 2)
    merge(tmp_path / "out", [made / "2", made / "1"])
    files = [json.loads(file.read_text()) for file in coco.parts(tmp_path / "out")]
    assert [len(file["images"]) for file in files] == [2, 2, 1]
    one = json.loads((made / "whole/annotations.json").read_text())
    for key in ("images", "annotations"):
        assert [entry for file in files for entry in file[key]] == one[key], "ids count on"
    records = b"".join(file.read_bytes() for file in sorted((tmp_path / "out/provenance").iterdir()))
    assert records == (made / "whole/provenance.jsonl").read_bytes()
    assert not (tmp_path / "out/provenance.jsonl").exists()
    assert coco.read(tmp_path / "out").images == coco.read(made / "whole").images
    assert check(tmp_path / "out") == []


def test_no_weights_are_hashed_twice(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    whole = tensors.hashlib.sha256

    class Counting:
        def __init__(self, *given: bytes) -> None:
            self.inner = whole(*given)

        def update(self, data: bytes) -> None:
            hashed.append(len(data))
            self.inner.update(data)

        def hexdigest(self) -> str:
            return self.inner.hexdigest()

    monkeypatch.setattr(tensors.hashlib, "sha256", Counting)
    pipeline = loading.load(loading.Models(generates=True, gate="none", settings=chosen(), **models(tiny)))
    assert pipeline.generator is not None
    assert pipeline.detector is not None
    parts = [*pipeline.generator.model.parts.values(), pipeline.editor.model.unet, pipeline.detector.network]
    once = sum(4 * tensor.numel() for part in parts for tensor in part.state_dict().values())
    unet = sum(4 * tensor.numel() for tensor in pipeline.generator.model.unet.state_dict().values())
    assert once + unet <= sum(hashed) < 1.02 * (once + unet), "the base U-Net, and the one that the adapter changed"
    assert pipeline.editor.model.vae is pipeline.generator.model.vae, "read once"
