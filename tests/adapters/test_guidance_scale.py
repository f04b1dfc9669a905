"""The guidance scale of generated fields: the user's, else that of the adapter, else the paper's."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cytosynth.adapters.adapter import CARD
from cytosynth.errors import UserError
from cytosynth.io.bundled import bundled
from cytosynth.normal.generate import NormalImageGenerator
from cytosynth.normal.recipe import PRESETS
from cytosynth.normal.settings import GenerateSettings

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


@pytest.mark.parametrize("scale", [0.5, "three", float("nan")])
def test_a_card_with_another_scale_is_refused_in_one_line(scale: object, tiny: Path, tmp_path: Path) -> None:
    folder = of(scale, tiny / "normal", tmp_path / "adapter")
    with pytest.raises(UserError, match=r"adapter\.json.*guidance_scale") as raised:
        NormalImageGenerator(str(tiny / "foundation"), str(folder))
    assert "\n" not in str(raised.value)


def test_the_bundled_adapters_say_what_their_recipe_says() -> None:
    for name in ("normal", "normal_liquid"):
        card = json.loads((bundled(name) / CARD).read_text())
        assert card["guidance_scale"] == PRESETS["bundled"].guidance_scale == 3
    assert PRESETS["paper"].guidance_scale == 5
