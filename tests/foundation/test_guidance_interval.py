"""Guidance within an interval of timesteps only."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from cytosynth.cell.settings import EditSettings
from cytosynth.foundation import sampling
from cytosynth.foundation.load import load
from cytosynth.normal.settings import GenerateSettings


@pytest.mark.parametrize("t", [0, 199, 200, 600, 601, 999])
def test_guidance_acts_inside_the_interval_and_the_conditional_model_outside(tiny: Path, t: int) -> None:
    model = load(str(tiny / "foundation")).freeze()
    text = model.encode_text(["A normal cervical cytopathological image", ""])
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    calls = []
    hook = model.unet.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    try:
        inside = sampling.guided(model.unet, text[:1], text[1:], 5.0, guidance_interval=(200, 600))(x, torch.tensor(t))
    finally:
        hook.remove()
    free, conditional = (model.unet(x, torch.tensor(t), text[k : k + 1]).sample for k in (1, 0))
    guided = 200 <= t <= 600
    expected = free + 5.0 * (conditional - free) if guided else conditional
    assert calls == [2 if guided else 1], "outside it costs one pass"
    assert torch.allclose(inside, expected, atol=1e-5)
    assert not torch.allclose(free, conditional, atol=1e-4)


def test_both_stages_take_an_interval_and_refuse_an_empty_one() -> None:
    for settings in (GenerateSettings, EditSettings):
        assert settings().guidance_interval == (0, 1000)
        assert settings.model_validate({"guidance_interval": [100, 800]}).guidance_interval == (100, 800)
        with pytest.raises(ValidationError, match="give the lower timestep first"):
            settings.model_validate({"guidance_interval": [800, 100]})
        with pytest.raises(ValidationError, match="less than or equal to 1000"):
            settings.model_validate({"guidance_interval": [0, 2000]})
