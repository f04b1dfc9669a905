"""Fields begin with the low frequencies of training images: what is fitted, sampled, kept and refused."""

import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from safetensors.torch import load_file, save_file
from scipy.fft import dctn, idctn

from cytosynth.config import override
from cytosynth.data.sources import Source
from cytosynth.errors import UsageError, UserError
from cytosynth.normal.generate import NormalImageGenerator
from cytosynth.normal.low_frequencies import FILE, KEPT, LowFrequencies
from cytosynth.normal.recipe import PRESETS
from cytosynth.normal.settings import GenerateSettings
from cytosynth.normal.train import train_normal
from cytosynth.slides.settings import SlideSettings
from cytosynth.synthesis import plan as plans
from cytosynth.synthesis import synthesize
from cytosynth.synthesis.plan import PlanSettings
from cytosynth.synthesis.settings import PipelineSettings

SMALL = GenerateSettings(size=128, steps=2)


def latents(count: int, side: int = 16) -> tuple[list[torch.Tensor], np.ndarray]:
    """Return latents of two channels whose low frequencies are correlated Gaussians, and these, over the side."""
    rng = np.random.default_rng(4)
    mix = rng.normal(size=(2 * KEPT**2, 2 * KEPT**2)) / 6
    known = (rng.normal(size=(count, 2 * KEPT**2)) @ mix.T + 0.5).reshape(count, 2, KEPT, KEPT)
    padded = rng.normal(size=(count, 2, side, side))
    padded[:, :, :KEPT, :KEPT] = known * side
    return [torch.from_numpy(idctn(one, axes=(1, 2), norm="ortho")) for one in padded], known


def test_what_is_sampled_has_the_mean_and_the_covariance_of_the_images() -> None:
    images, known = latents(4000)
    found = LowFrequencies.of(images)
    assert np.allclose(found.mean, known.mean(axis=0), atol=1e-5), "both squares of a square are itself"
    samples = np.stack([found.draw(16, 9, index)[0].double().numpy() for index in range(4000)])
    coefficients = dctn(samples, axes=(2, 3), norm="ortho") / 16
    kept = coefficients[:, :, :KEPT, :KEPT].copy()
    coefficients[:, :, :KEPT, :KEPT] = 0
    assert np.abs(coefficients).max() < 1e-5, "nothing but low frequencies"
    assert np.allclose(kept.mean(axis=0), known.mean(axis=0), atol=0.08)
    ours, theirs = (np.cov(one.reshape(4000, -1), rowvar=False) for one in (kept, known))
    assert np.abs(ours - theirs).max() < 0.12 * np.abs(theirs).max()
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.98


def test_a_pattern_depends_on_its_seed_and_is_stretched_to_the_field() -> None:
    found = LowFrequencies.of(latents(50)[0])
    assert torch.equal(found.draw(16, 1, 2), found.draw(16, 1, 2))
    assert not torch.equal(found.draw(16, 1, 2), found.draw(16, 1, 3))
    large = torch.nn.functional.avg_pool2d(found.draw(32, 1, 2), 2)
    assert torch.allclose(large, found.draw(16, 1, 2), atol=0.03 * float(large.abs().max()))
    assert found.draw(2, 0).shape == (1, 2, 2, 2), "fewer latents than frequencies"
    wide = torch.cat([torch.full((1, 8, 8), -1.0), torch.zeros(1, 8, 4), torch.full((1, 8, 8), 1.0)], dim=2)
    ends = LowFrequencies.of([wide])
    assert abs(float(ends.mean[0, 0, 0])) < 1e-6 and ends.root[:, -1].any(), "the squares at both ends"
    tracemalloc.start()
    LowFrequencies.of([torch.zeros(4, 128, 128)] * 60)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20, "no whole transform is kept"
    tracemalloc.stop()
    alone = LowFrequencies.of([torch.full((1, 8, 8), 0.25)])
    assert torch.allclose(alone.draw(8, 5), torch.tensor(0.25)), "one image has no variance"


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny LoRA, with low frequencies."""
    folder = tmp_path_factory.mktemp("low") / "normal"
    shutil.copytree(tiny / "normal", folder)
    images = [torch.cat([image, image]).float() for image in latents(30)[0]]
    LowFrequencies.of(images).save(folder)
    return folder


def test_fields_begin_with_them_unless_they_are_switched_off(tiny: Path, adapter: Path) -> None:
    before = NormalImageGenerator(str(tiny / "foundation"), str(tiny / "normal"))
    after = NormalImageGenerator(str(tiny / "foundation"), str(adapter))
    off = SMALL.model_copy(update={"low_frequencies": False})
    assert np.array_equal(before.field(1, 2, SMALL), after.field(1, 2, off)), "the weights are the same"
    assert before.digest == after.digest and before.start == "" != after.start
    shown = after.field(1, 2, SMALL)
    assert not np.array_equal(shown, after.field(1, 2, off))
    assert np.array_equal(shown, after.field(1, 2, SMALL.model_copy(update={"low_frequencies": True})))
    pairs = SMALL.model_copy(update={"batch": 2})
    file = NormalImageGenerator(str(tiny / "foundation"), str(adapter / "pytorch_lora_weights.safetensors"))
    assert file.start == after.start, "next to the file, too"
    many = after.fields([(1, 1), (1, 2)], pairs)
    assert np.array_equal(many[1], after.field(1, 2, pairs)), "alone as among others"
    with pytest.raises(UsageError, match=f"low_frequencies=true: the adapter has no {FILE}"):
        before.field(1, 2, SMALL.model_copy(update={"low_frequencies": True}))


def test_z_t_is_made_of_them_as_in_training(tiny: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cytosynth.foundation import sampling

    generator = NormalImageGenerator(str(tiny / "foundation"), str(adapter))
    seen: list[torch.Tensor] = []

    times: list[int] = []

    def guided(*_: object, **__: object) -> object:
        def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            seen.append(x.clone())
            times.append(int(t))
            return torch.zeros_like(x)

        return denoise

    monkeypatch.setattr(sampling, "guided", guided)
    generator.latents([(3, 4)], SMALL)
    left = float(generator.model.scheduler.alphas_cumprod[times[0]])
    assert generator.low_frequencies is not None
    pattern, noise = generator.low_frequencies.draw(16, 3, 4, 3), sampling.noise((1, 4, 16, 16), 3, 4, 1)
    assert torch.allclose(seen[0], left**0.5 * pattern + (1 - left) ** 0.5 * noise, atol=1e-5)


def test_a_run_says_so_and_its_plan_makes_it_again(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    given = {name: str(tiny / name) for name in ("foundation", "cell", "detector")} | {"normal": str(adapter)}
    settings = override(PipelineSettings(), ["normal.size=320", "normal.steps=1", "cell.steps=1", "threshold=0.1"])
    synthesize.synthesize(tmp_path / "out", count=1, settings=settings, **given)
    plan = json.loads((tmp_path / "out/plan.json").read_text())
    assert plan["settings"]["normal"]["low_frequencies"] is True and "low_frequencies" in plan["models"]
    again = {name: path for name, path in given.items() if name != "detector"}
    base = PipelineSettings(**dict(PlanSettings.model_validate(plan["settings"])))
    synthesize.synthesize(tmp_path / "again", plan=tmp_path / "out/plan.json", settings=base, **again)
    other_adapter = again | {"normal": str(tiny / "normal")}
    following = plans.read(tmp_path / "out/plan.json").base()
    synthesize.synthesize(tmp_path / "other", plan=tmp_path / "out/plan.json", settings=following, **other_adapter)
    one, other = (np.asarray(PILImage.open(tmp_path / name / "images/000000.png")) for name in ("again", "out"))
    assert np.array_equal(one, other)
    del plan["settings"]["normal"]["low_frequencies"]
    assert PlanSettings.model_validate(plan["settings"]).normal.low_frequencies is False, "a plan of before"
    assert PlanSettings().normal.low_frequencies is None
    with pytest.raises(UsageError, match=r"normal\.low_frequencies=true: is of fields"):
        SlideSettings(width=512, height=512, pipeline=base).check()


def test_training_writes_them_next_to_the_adapter(tiny: Path, fields: Path, tmp_path: Path) -> None:
    recipe = PRESETS["bundled"].model_copy(
        update={"foundation": str(tiny / "foundation"), "data": [Source(root="drawn")], "window": 128,
                "max_steps": 1, "batch_size": 1, "preview_every": 100}
    )  # fmt: skip
    outcome = train_normal(recipe, tmp_path / "run", fields)
    found = LowFrequencies.load(outcome.weights, 4)
    assert found is not None and found.mean.shape == (4, KEPT, KEPT) and np.abs(found.root).max() > 0
    assert NormalImageGenerator(str(tiny / "foundation"), str(outcome.weights)).start


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"mean": torch.zeros(3, 4, 4)}, r"expected mean \(4, K, K\) and root"),
        ({"root": torch.zeros(8, 8)}, r"got \{'mean': \(4, 4, 4\), 'root': \(8, 8\)\}"),
        ({"mean": torch.full((4, 4, 4), torch.nan)}, "contains NaN or infinity"),
        ({"mean": torch.full((4, 4, 4), 1e300, dtype=torch.float64)}, "contains NaN or infinity"),
        ({"mean": torch.zeros(4, 0, 0), "root": torch.zeros(0, 0)}, r"expected mean \(4, K, K\)"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    change: dict[str, torch.Tensor], complaint: str, tiny: Path, adapter: Path, tmp_path: Path
) -> None:
    shutil.copytree(adapter, tmp_path / "normal")
    save_file(load_file(adapter / FILE) | change, tmp_path / "normal" / FILE)
    with pytest.raises(UserError, match=complaint):
        NormalImageGenerator(str(tiny / "foundation"), str(tmp_path / "normal"))
