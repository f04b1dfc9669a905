"""The guidance scale of generated fields: the user's, else that of the adapter, else the paper's."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cytosynth.adapters.adapter import CARD
from cytosynth.config import override
from cytosynth.errors import UserError
from cytosynth.io.bundled import bundled
from cytosynth.normal.generate import NormalImageGenerator
from cytosynth.normal.recipe import PRESETS
from cytosynth.normal.settings import GenerateSettings
from cytosynth.synthesis import synthesize
from cytosynth.synthesis.computing import decided
from cytosynth.synthesis.plan import PlanSettings
from cytosynth.synthesis.settings import PipelineSettings

SMALL = GenerateSettings(size=64, steps=2)


def of(scale: object, adapter: Path, folder: Path) -> Path:
    """Return a copy of `adapter` whose card says `scale`; None: nothing."""
    shutil.copytree(adapter, folder)
    card = json.loads((folder / CARD).read_text())
    card.pop("guidance_scale", None)
    (folder / CARD).write_text(json.dumps(card if scale is None else card | {"guidance_scale": scale}))
    return folder


def test_fields_are_generated_at_the_scale_of_the_adapter_unless_another_is_set(tiny: Path, tmp_path: Path) -> None:
    foundation, adapter = str(tiny / "foundation"), tiny / "normal"
    low = NormalImageGenerator(foundation, str(of(2.0, adapter, tmp_path / "low")))
    old = NormalImageGenerator(foundation, str(of(None, adapter, tmp_path / "old")))
    alone = NormalImageGenerator(foundation, None)
    assert [one.settled(SMALL).guidance_scale for one in (low, old, alone)] == [2.0, 5.0, 5.0]
    file = NormalImageGenerator(foundation, str(tmp_path / "low/pytorch_lora_weights.safetensors"))
    assert file.guidance_scale == 2.0, "next to the file, too"
    at_two = SMALL.model_copy(update={"guidance_scale": 2.0})
    assert old.settled(at_two) == low.settled(SMALL), "what is settled says the scale"
    assert low.digest == old.digest, "the weights are the same"
    drawn = low.field(0, 0, SMALL)
    assert np.array_equal(drawn, old.field(0, 0, at_two))
    assert not np.array_equal(drawn, old.field(0, 0, SMALL))


@pytest.mark.parametrize("scale", [0.5, "three", float("nan"), float("inf"), 101])
def test_a_card_with_another_scale_is_refused_in_one_line(scale: object, tiny: Path, tmp_path: Path) -> None:
    folder = of(scale, tiny / "normal", tmp_path / "adapter")
    with pytest.raises(UserError, match=r"adapter\.json.*guidance_scale") as raised:
        NormalImageGenerator(str(tiny / "foundation"), str(folder))
    assert "\n" not in str(raised.value)


def test_a_card_beside_a_file_of_another_tool_is_not_read(tiny: Path, tmp_path: Path) -> None:
    folder = of(2.0, tiny / "normal", tmp_path / "mine")
    other = folder / "public.safetensors"
    shutil.copyfile(folder / "pytorch_lora_weights.safetensors", other)
    (folder / CARD).write_text("of another program")
    assert NormalImageGenerator(str(tiny / "foundation"), str(other)).guidance_scale == 5.0


def test_runs_and_plans_of_before_keep_five(tiny: Path, tmp_path: Path) -> None:
    at_five = PipelineSettings(normal=GenerateSettings(guidance_scale=5.0))
    assert decided(PipelineSettings(), at_five, "cpu").normal.guidance_scale == 5.0
    assert decided(PipelineSettings(), None, "cpu").normal.guidance_scale is None
    asked = PipelineSettings(normal=GenerateSettings(guidance_scale=4.0))
    assert decided(asked, at_five, "cpu").normal.guidance_scale == 4.0, "and is then refused"
    by_hand = PlanSettings.model_validate({"normal": {"size": 320, "steps": 1}})
    assert by_hand.normal.guidance_scale == 5.0 and by_hand.normal.low_frequencies is False
    # A run of before wrote 5; the same command continues it with an adapter that says 2.
    low = str(of(2.0, tiny / "normal", tmp_path / "low"))
    given = {name: str(tiny / name) for name in ("foundation", "cell", "detector")} | {"normal": low}
    changes = ["normal.size=320", "normal.steps=1", "cell.steps=1", "threshold=0.1"]
    before = override(PipelineSettings(), [*changes, "normal.guidance_scale=5"])
    synthesize.synthesize(tmp_path / "out", count=1, settings=before, **given)
    synthesize.synthesize(tmp_path / "out", count=2, settings=override(PipelineSettings(), changes), **given)
    plan = json.loads((tmp_path / "out/plan.json").read_text())
    assert plan["settings"]["normal"]["guidance_scale"] == 5.0 and len(plan["images"]) == 2


def test_runs_that_only_edit_say_the_scale_that_they_always_said(tiny: Path, fields: Path, tmp_path: Path) -> None:
    given = {name: str(tiny / name) for name in ("foundation", "cell", "detector")}
    settings = override(PipelineSettings(), ["cell.steps=1", "threshold=0.1"])
    synthesize.edit(fields, tmp_path / "out", settings=settings, limit=1, **given)
    assert json.loads((tmp_path / "out/plan.json").read_text())["settings"]["normal"]["guidance_scale"] == 5.0


def test_the_bundled_adapters_say_what_their_recipe_says() -> None:
    for name in ("normal", "normal_liquid"):
        card = json.loads((bundled(name) / CARD).read_text())
        assert card["guidance_scale"] == PRESETS["bundled"].guidance_scale == 3
    assert PRESETS["paper"].guidance_scale == 5
