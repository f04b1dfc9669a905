"""The strength of an edit may fall towards the edge of its region, so that the surroundings follow the cell before."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import drawn
from cytosynth.adapters.distilled import DistilledCard
from cytosynth.api import as_settings
from cytosynth.cell import editing
from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.cell.settings import EditSettings
from cytosynth.cell.synthesizer import depth_of
from cytosynth.cli.pipeline_options import pipeline_settings
from cytosynth.foundation import sampling
from cytosynth.foundation.names import BUNDLED
from cytosynth.io.bundled import bundled
from cytosynth.synthesis.fast import Fast
from cytosynth.synthesis.plan import PlanSettings
from cytosynth.synthesis.settings import PipelineSettings


def test_the_depth_grows_from_the_edge_of_the_ellipse_inwards() -> None:
    depth = depth_of((64.0, 96.0, 192.0, 160.0), 256, 8, 0.5)[0]
    assert depth.shape == (32, 32)
    assert depth[:12].max() == 0 and depth[20:].max() == 0 and depth[:, :8].max() == 0 and depth[12, 8] == 0, "outside"
    along, across = depth[15], depth[:, 15]
    radius = torch.tensor([abs(column * 8 + 4 - 128) for column in range(16, 24)]) / 64
    off = torch.hypot(radius, torch.tensor((15 * 8 + 4 - 128) / 32))
    assert along[16:24].tolist() == pytest.approx(((1 - off) / 0.5).clamp(0, 1).tolist(), abs=1e-6)
    assert along[16] == 1 and across[15] == 1, "full strength in the inner half"
    whole = depth_of((64.0, 64.0, 192.0, 192.0), 256, 8, 1.0)[0]
    assert torch.equal(whole, whole.flip(0)) and torch.equal(whole, whole.T)
    assert whole.max() < 1, "over the whole radius only the very centre has full strength"


@pytest.mark.parametrize(
    ("name", "off"), [("ddim", 1e-4), ("euler", 1e-4), ("ddim-trailing", 1e-4), ("dpm++2m", 0.05), ("unipc", 0.05)]
)
def test_it_equals_the_strength_with_every_sampler(name: str, off: float, tiny: Path) -> None:
    """Those with a memory of earlier steps remember some in which the place was held."""
    schedule = CellEditor.load(str(tiny / "foundation"), str(tiny / "cell")).model.scheduler
    clean, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)

    def sampled(**settings: Any) -> Tensor:
        return sampling.sample(
            lambda x, t: 0.3 * x + 0.1, sampling.samplers.build(name, schedule), noise, steps=8, clean=clean, **settings
        )

    whole = sampled()
    for strength in (0.25, 0.5):
        alike = sampled(strengths=torch.full((1, 1, 8, 8), strength))
        assert (alike - sampled(strength=strength)).abs().mean() < off
        assert (alike - whole).abs().mean() > 0.1


@pytest.mark.parametrize("name", ["ddim", "lcm"])
def test_a_place_is_held_until_its_share_of_the_steps_is_left(name: str, tiny: Path) -> None:
    editor = CellEditor.load(str(tiny / "foundation"), str(tiny / "cell"))
    clean, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    strengths = torch.zeros(1, 1, 8, 8)
    strengths[..., 2:], strengths[..., 4:], strengths[..., 6:] = 0.25, 0.5, 1.0

    def watched(strengths: Tensor | None, seen: list[tuple[Tensor, Tensor]], strength: float = 1.0) -> Tensor:
        def denoise(x: Tensor, t: Tensor) -> Tensor:
            seen.append((x.clone(), t))
            return 0.3 * x + 0.1

        scheduler = sampling.samplers.build(name, editor.model.scheduler)
        return sampling.sample(
            denoise, scheduler, noise, steps=4, clean=clean, strength=strength, strengths=strengths, seeds=[(1,)]
        )  # fmt: skip

    seen: list[tuple[Tensor, Tensor]] = []
    result = watched(strengths, seen)
    assert torch.equal(result[..., :2], clean[..., :2]) and not torch.allclose(result[..., 2:], clean[..., 2:])
    an_eighth = watched(torch.full((1, 1, 8, 8), 0.125), [])
    assert torch.allclose(an_eighth, (clean + watched(torch.full((1, 1, 8, 8), 0.25), [])) / 2, atol=1e-5), (
        "half a step: half of what one step changes"
    )
    assert len(seen) == 4
    for left, (x, t) in zip((4, 3, 2, 1), seen, strict=True):
        was = editor.model.scheduler.add_noise(clean, noise, torch.as_tensor(t).reshape(1))
        held = (4 * strengths <= left).expand_as(clean)
        assert torch.allclose(x[held], was[held], atol=1e-5), f"{left} of four steps left"
        assert left == 4 or not torch.allclose(x[~held], was[~held], atol=1e-2)
    for strength in (0.25, 0.5, 0.75) if name == "ddim" else ():  # lcm would draw other noise in fewer steps
        alike = watched(torch.full((1, 1, 8, 8), strength), [])
        assert torch.allclose(alike, watched(None, [], strength), atol=1e-5), "as with that strength everywhere"
    everywhere: list[tuple[Tensor, Tensor]] = []
    same = watched(torch.ones(1, 1, 8, 8), everywhere)
    assert torch.equal(same, watched(None, [])), "a strength of 1 everywhere is no fall, to the bit"


def test_less_changes_near_the_edge_and_the_synthesizer_says_how_much_less(tiny: Path, tmp_path: Path) -> None:
    cell = shutil.copytree(tiny / "cell", tmp_path / "cell")
    said = json.loads((cell / editing.FILE).read_text()) if (cell / editing.FILE).exists() else {}
    (cell / editing.FILE).write_text(json.dumps(said | {"fall": 0.9}))
    editor = CellEditor.load(str(tiny / "foundation"), str(cell))
    assert editor.settled(EditSettings(), real=True).fall == 0.9
    assert CellEditor.load(str(tiny / "foundation"), str(tiny / "cell")).settled(EditSettings(), real=True).fall == 0
    pixels = np.ascontiguousarray(drawn(4)[0][:256, :256])
    edits = [PlannedEdit((80.0, 80.0, 176.0, 176.0), "HSIL", 5)]

    def changed(**settings: Any) -> tuple[float, float]:
        """Return the mean change near the edge of the region and at its centre."""
        new = editor.edit(pixels, edits, EditSettings(steps=8, feather=0, **settings))
        change = np.abs(new.astype(float) - pixels).mean(axis=2)
        y, x = np.mgrid[:256, :256] + 0.5
        radius = np.hypot(x - 128, y - 128) / 48
        return float(change[(radius > 0.85) & (radius < 1)].mean()), float(change[radius < 0.3].mean())

    edge, centre = changed(fall=0.9)
    assert changed() == (edge, centre), "the synthesizer's, unless the settings say otherwise"
    edge_before, centre_before = changed(fall=0.0)
    assert edge / centre < 0.8 * edge_before / centre_before


def test_with_a_strength_below_1_it_falls_from_there(tiny: Path) -> None:
    editor = CellEditor.load(str(tiny / "foundation"), str(tiny / "cell"))
    edits = [PlannedEdit((80.0, 80.0, 176.0, 176.0), "HSIL", 5)]
    whole, half = (
        editor._strengths(edits, 256, EditSettings(fall=0.9, strength=strength, steps=8)) for strength in (1.0, 0.5)
    )
    assert whole is not None and half is not None and torch.equal(half, 0.5 * whole)
    assert editor._strengths(edits, 256, EditSettings(fall=0.0)) is None
    least = editor._strengths(edits, 256, EditSettings(fall=0.5, strength=0.1, steps=4))
    assert least is not None and least.max() == pytest.approx(0.25), "one step at least, as without a fall"


def test_few_step_weights_bring_their_own() -> None:
    assert Fast(cell=BUNDLED).settings()["cell.fall"] == 0.7
    assert "fall" not in DistilledCard(stage="cell").settings(), "as without these weights"
    assert "fall" not in DistilledCard(stage="normal", fall=0.5).settings(), "stage 1 edits nothing"


def test_the_bundled_synthesizer_has_one_and_earlier_plans_have_none() -> None:
    assert editing.read(bundled("cell")).fall == 0.5
    before = EditSettings(box_scale=1.8, grain=1.0).model_dump()
    del before["fall"]
    assert PlanSettings.model_validate({"cell": before}).cell.fall == 0
    assert PlanSettings.model_validate({"cell": {"steps": 10}}).cell.fall is None, "written by hand"


def test_a_plan_keeps_its_own_when_it_is_followed_with_few_step_weights(tmp_path: Path) -> None:
    plan = {"version": 1, "models": {"fast_cell": "bundled 0"}, "images": [{"file_name": "a.png", "original": "a.jpg"}],
            "settings": {"cell": EditSettings(steps=3, fall=0.0).model_dump()}}  # fmt: skip

    def followed(values: dict[str, Any]) -> EditSettings:
        path = tmp_path / "plan.json"
        path.write_text(json.dumps(values))
        few = Fast(cell=BUNDLED)
        chosen = pipeline_settings(path, {"seed": None}, None, None, None, BUNDLED, few).cell
        assert chosen == as_settings(None, path, fast=few).cell
        return chosen

    assert (followed(plan).fall, followed(plan).steps) == (0.0, 3)
    del plan["settings"]["cell"]["fall"]  # type: ignore[index]
    assert followed(plan).fall == 0, "as an earlier version wrote it"
    few = followed(plan | {"models": {}})
    assert (few.fall, few.steps, few.sampler) == (0.7, 4, "lcm"), "made without few-step weights"
    assert as_settings(PipelineSettings(cell=EditSettings(fall=0.1)), fast=Fast(cell=BUNDLED)).cell.fall == 0.1
    assert as_settings(PipelineSettings(), fast=Fast(cell=BUNDLED)).cell.fall == 0.7
