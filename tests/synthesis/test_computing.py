"""What the machine decides of a run is decided once: whoever continues it takes what is written, or is refused."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from cytosynth.config import override
from cytosynth.data.shard import Shard
from cytosynth.errors import UsageError, UserError
from cytosynth.foundation import precision
from cytosynth.io.background import Background
from cytosynth.scale.merge import merge
from cytosynth.synthesis import models as loading
from cytosynth.synthesis import plan, synthesize
from cytosynth.synthesis.computing import decided
from cytosynth.synthesis.settings import COMMAND, PipelineSettings

FAST = ["normal.size=256", "normal.steps=2", "cell.steps=2", "threshold=0.1", "cell.box_scale=1.2", "max_cells=2"]


def chosen(*changes: str) -> PipelineSettings:
    return override(COMMAND.model_copy(update={"seed": 5}), [*FAST, *changes])


def models(tiny: Path) -> dict[str, str]:
    return {name: str(tiny / name) for name in ("foundation", "normal", "cell", "detector")}


def content(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture
def fast_at_bf16(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bool]]:
    """Whether this machine passes for one that is fast at bf16, as it does at first."""
    says = {"bf16": True}
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: says["bf16"])
    yield says


def test_what_is_left_open_is_decided_by_the_machine_or_by_what_is_written(fast_at_bf16: dict[str, bool]) -> None:
    first = decided(chosen(), None, "cpu")
    assert (first.precision, first.threads, first.cell.batch) == ("bf16", torch.get_num_threads(), 4)
    fast_at_bf16["bf16"] = False
    assert decided(chosen(), None, "cpu").precision == "fp32"
    assert decided(chosen(), first, "cpu") == first
    given = decided(chosen("precision=fp16", "threads=3", "cell.batch=2"), first, "cpu")
    assert (given.precision, given.threads, given.cell.batch) == ("fp16", 3, 2)
    old = PipelineSettings(cell=first.cell)  # written before threads were
    assert decided(chosen(), old, "cpu").threads is None


@pytest.mark.promise("Generation survives being killed")
def test_a_run_in_bf16_continues_on_a_machine_that_would_take_fp32(
    fast_at_bf16: dict[str, bool], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = chosen("normal.batch=2", "cell.batch=3")
    whole, out = tmp_path / "whole", tmp_path / "out"
    synthesize.synthesize(whole, count=3, settings=asked, **models(tiny))
    said = yaml.safe_load((whole / "settings.yaml").read_text())["settings"]
    assert (said["precision"], said["threads"]) == ("bf16", torch.get_num_threads())
    assert (said["normal"]["batch"], said["cell"]["batch"]) == (2, 3)
    synthesize.synthesize(out, count=1, settings=asked, **models(tiny))
    fast_at_bf16["bf16"] = False
    seen: list[tuple[torch.dtype, int]] = []

    def load(given: loading.Models) -> Any:
        pipeline = loading.load(given)
        seen.append((pipeline.editor.model.unet.dtype, torch.get_num_threads()))
        return pipeline

    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        synthesize.synthesize(out, count=3, settings=chosen("normal.batch=2"), load=load, **models(tiny))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    assert seen == [(torch.bfloat16, before)]
    assert content(out) == content(whole)
    with pytest.raises(
        UsageError, match=r"settings.yaml: this run was started with another precision \(bf16, not fp32\)"
    ):
        synthesize.synthesize(out, count=3, settings=chosen("precision=fp32", "normal.batch=2"), **models(tiny))
    with pytest.raises(UsageError, match=r"another normal.batch \(2, not 1\) and another cell.batch \(3, not 4\)"):
        synthesize.synthesize(out, count=3, settings=chosen("cell.batch=4"), **models(tiny))
    alone = tmp_path / "alone"
    synthesize.synthesize(alone, count=1, start=2, settings=chosen("precision=bf16", "normal.batch=2", "cell.batch=3"),
                          **models(tiny))  # fmt: skip
    assert (alone / "images/000002.png").read_bytes() == (whole / "images/000002.png").read_bytes()
    again = plan.read(whole / "plan.json").base()
    assert (again.precision, again.threads, again.normal.batch, again.cell.batch) == ("bf16", before, 2, 3)


def test_shards_in_bf16_are_merged_and_one_of_another_precision_is_named(
    fast_at_bf16: dict[str, bool], tiny: Path, tmp_path: Path
) -> None:
    for name, shard in (("whole", None), ("1", Shard(1, 2)), ("2", Shard(2, 2))):
        settings = chosen("normal.batch=2")
        synthesize.synthesize(tmp_path / name, count=3, settings=settings, shard=shard, **models(tiny))
    merge(tmp_path / "out", [tmp_path / "1", tmp_path / "2"])
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    shutil.copytree(tmp_path / "2", tmp_path / "other")
    file = tmp_path / "other/settings.yaml"
    file.write_text(file.read_text().replace("precision: bf16", "precision: fp32"))
    with pytest.raises(UserError, match=r"other: made with another precision \(fp32, not bf16\) than .*1 "):
        merge(tmp_path / "never", [tmp_path / "1", tmp_path / "other"])
    file.write_text((tmp_path / "2/settings.yaml").read_text().replace("threads: ", "threads: 9"))
    merge(tmp_path / "threads", [tmp_path / "1", tmp_path / "other"])


def test_a_run_with_a_tiny_decoder_says_so(tiny: Path, tmp_path: Path) -> None:
    from diffusers import AutoencoderTiny

    from cytosynth.foundation.load import load

    model = load(str(tiny / "foundation"))
    widths = (4,) * len(model.vae.config.block_out_channels)
    blocks = (1,) * len(widths)
    torch.manual_seed(0)
    AutoencoderTiny(
        latent_channels=model.channels, encoder_block_out_channels=widths, decoder_block_out_channels=widths,
        num_encoder_blocks=blocks, num_decoder_blocks=blocks,
    ).save_pretrained(tmp_path / "taesd")  # fmt: skip
    out, own = tmp_path / "out", tmp_path / "own"
    settings = chosen("precision=fp32")
    data = synthesize.synthesize(out, count=1, settings=settings, decoder=str(tmp_path / "taesd"), **models(tiny))
    synthesize.synthesize(own, count=1, settings=settings, **models(tiny))
    said = yaml.safe_load((out / "settings.yaml").read_text())["models"]
    assert said["decoder"].startswith("own:taesd ")
    assert "decoder" not in yaml.safe_load((own / "settings.yaml").read_text())["models"]
    assert "own:taesd" in Image.open(data.path(data.images[0])).text["cytosynth"]
    assert (out / "images/000000.png").read_bytes() != (own / "images/000000.png").read_bytes()
    with pytest.raises(UsageError, match="other settings or models"):
        synthesize.synthesize(out, count=1, settings=settings, **models(tiny))


def test_background_work_goes_in_order_and_its_error_reaches_the_caller() -> None:
    done: list[int] = []
    with Background[int](done.append, waiting=2) as background:
        for number in range(20):
            background.put(number)
    assert done == list(range(20))

    def fails(number: int) -> None:
        if number == 3:
            raise OSError("no space left")
        done.append(100 + number)

    with pytest.raises(OSError, match="no space left"), Background(fails, waiting=1) as background:
        for number in range(1000):
            background.put(number)
    assert done[20:] == [100, 101, 102], "nothing after the one that failed"
    with pytest.raises(KeyError), Background[int](done.append) as background:
        background.put(7)
        raise KeyError
    assert done[-1] == 7, "what was finished before an error is not lost"
