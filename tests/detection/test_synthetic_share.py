"""Synthetic images in a detector's training: how often they are drawn, and how much they weigh."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cytosynth.annotations import Cell
from cytosynth.data.sources import Sample
from cytosynth.detection.recipe import DetectorRecipe
from cytosynth.detection.train import DetectorTask, train_detector
from cytosynth.errors import UsageError


def samples(count: int, value: int) -> list[Sample]:
    pixels = np.full((96, 96, 3), value, dtype=np.uint8)
    pixels[30:60, 30:60] = 40
    return [Sample(f"{n}.png", "set", pixels, (Cell((30, 30, 60, 60), "LSIL"),)) for n in range(count)]


def task(**changes: object) -> DetectorTask:
    torch.manual_seed(0)
    recipe = DetectorRecipe(architecture="retinanet", backbone="small", categories=["LSIL"], **changes)  # type: ignore[arg-type]
    return DetectorTask(recipe, samples(3, 230), [], synthetic=samples(9, 200)).train()


def test_they_are_sampled_by_their_number_or_by_their_share() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array(task()._chosen(rng, 4000))
    assert np.mean(drawn >= 3) == pytest.approx(0.75, abs=0.03)
    assert task()._chosen(np.random.default_rng(5), 8) == list(np.random.default_rng(5).integers(12, size=8))
    shared = np.array(task(synthetic_share=0.2)._chosen(rng, 4000))
    assert np.mean(shared >= 3) == pytest.approx(0.2, abs=0.03)
    assert set(shared) == set(range(12)), "of each kind all"
    alone = DetectorTask(
        DetectorRecipe(backbone="small", synthetic_share=0.5, categories=["LSIL"]), samples(3, 230), []
    )
    assert max(alone._chosen(rng, 50)) == 2


@pytest.mark.parametrize("setting", [{"synthetic_share": 0.5}, {"synthetic_weight": 2.0}])
def test_a_share_or_weight_without_them_is_refused(setting: dict[str, float], tmp_path: Path) -> None:
    recipe = DetectorRecipe(backbone="small", categories=["LSIL"], **setting)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=f"^{next(iter(setting))}: no effect without synthetic images"):
        train_detector(recipe, tmp_path / "run", tmp_path)
    assert not (tmp_path / "run").exists()


def test_their_loss_counts_by_their_weight() -> None:
    light = task(synthetic_weight=0.25)
    batch = light.batch(np.random.default_rng(11), 4)
    kinds = batch["synthetic"]
    assert any(kinds) and not all(kinds)
    real, made = ([index for index, kind in enumerate(kinds) if kind == wanted] for wanted in (False, True))
    by_kind = [light._losses(batch, members) for members in (real, made)]
    found = light(batch)
    for name in by_kind[0]:
        expected = (len(real) * by_kind[0][name] + 0.25 * len(made) * by_kind[1][name]) / 4
        assert found[name].item() == pytest.approx(expected.item(), rel=1e-5)
    assert float(found["loss"]) == pytest.approx(sum(float(found[name]) for name in by_kind[0]), rel=1e-5)
    whole = task()
    assert float(whole(batch)["loss"]) == pytest.approx(
        sum(map(float, whole._losses(batch, range(4)).values())), rel=1e-5
    )
