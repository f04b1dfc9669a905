"""Phased consistency: edges, the consistency function at them, and the loss on models whose trajectories are known."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from cytosynth.config import dump, override, pin, read
from cytosynth.data.sources import Source
from cytosynth.distill import consistency
from cytosynth.distill.consistency import END
from cytosynth.distill.loss import loss
from cytosynth.distill.recipe import NORMAL, NormalDistillRecipe
from cytosynth.errors import UsageError, UserError
from cytosynth.foundation import samplers, sd15

PHASES = {1: 50, 2: 50, 4: 100, 5: 50, 8: 200, 10: 100}
"""Solver steps by the number of phases."""
DEVIATION = 1.7
"""Of the Gaussian data."""


def schedule(kind: str = "epsilon", ends_at_one: bool = False) -> DDPMScheduler:
    return DDPMScheduler.from_config(sd15.SCHEDULER | {"prediction_type": kind, "set_alpha_to_one": ends_at_one})


def recipe(**changes: object) -> NormalDistillRecipe:
    return NormalDistillRecipe.model_validate({"data": [Source(root="drawn")]} | changes)


def phased(phases: int, **changes: object) -> NormalDistillRecipe:
    return recipe(phases=phases, steps=phases, solver_steps=PHASES[phases], **changes)


@pytest.mark.parametrize("ends_at_one", [False, True])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_edges_are_where_the_sampler_stops_and_f_is_its_step(kind: str, ends_at_one: bool) -> None:
    ours = schedule(kind, ends_at_one)
    torch.manual_seed(0)
    x, output = torch.randn(1, 4, 4, 4), torch.randn(1, 4, 4, 4)
    for phases in PHASES:
        sampler = samplers.build(phased(phases).sampler, ours)
        sampler.set_timesteps(phases)
        edges = consistency.lower_edge(ours, phases, sampler.timesteps)
        assert edges.tolist() == [*sampler.timesteps[1:].tolist(), END]
        for t, edge in zip(sampler.timesteps[:, None], edges[:, None], strict=True):
            stepped = sampler.step(output, int(t), x).prev_sample
            assert torch.allclose(consistency.ddim(ours, output, x, t, edge), stepped, rtol=1e-4, atol=1e-4)
    assert consistency.lower_edge(ours, 4, torch.tensor([999, 750, 749, 500, 499, 250, 249, 0])).tolist() == [
        749, 749, 499, 499, 249, 249, END, END
    ]  # fmt: skip


@pytest.mark.parametrize("ends_at_one", [False, True])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_at_an_edge_it_is_the_identity(kind: str, ends_at_one: bool) -> None:
    ours = schedule(kind, ends_at_one)
    torch.manual_seed(0)
    edges = torch.tensor([749, 499, 249, END])
    x, output = torch.randn(4, 4, 4, 4), torch.randn(4, 4, 4, 4)
    assert torch.allclose(consistency.ddim(ours, output, x, edges, edges), x, atol=1e-5)
    assert not torch.allclose(consistency.ddim(ours, output, x, edges + 10, edges), x, atol=1e-2)


def test_no_step_of_the_solver_crosses_an_edge_and_every_edge_is_a_step() -> None:
    ours = schedule()
    for phases, least in PHASES.items():
        for steps in (n for n in range(least, 1001, 50) if n % phases == 0 and 1000 % n == 0):
            assert recipe(phases=phases, steps=phases, solver_steps=steps).solver_steps == steps
            timesteps = consistency.grid(ours, steps)
            earlier = timesteps - timesteps[0] - 1
            edges = consistency.lower_edge(ours, phases, timesteps)
            assert (edges <= earlier).all()
            assert {END, *timesteps.tolist()} == {END, *earlier.tolist(), 999}
            assert set(edges.tolist()) <= {END, *timesteps.tolist()}
            assert len(set(edges.tolist())) == phases


def factors(ours: DDPMScheduler, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return a and b of x_t = a x_0 + b noise, in double precision, for timesteps that may be END."""
    signal = ours.alphas_cumprod.double()[t.clamp(min=0)]
    return signal.sqrt(), (1 - signal).sqrt()


def test_on_gaussian_data_f_is_known() -> None:
    """x_0 of N(0, d²): the noise is b x / (a² d² + b²), and the flow scales x by the deviations sqrt(a² d² + b²)."""
    ours = schedule()
    t = torch.tensor([999, 900, 750, 749, 510, 259, 249, 9])
    edge = consistency.lower_edge(ours, 4, t)
    torch.manual_seed(0)
    x = torch.randn(len(t), 1, 1, 1, dtype=torch.float64)
    (a, b), (a_s, b_s) = (tuple(part[:, None, None, None] for part in factors(ours, at)) for at in (t, edge))
    spread, spread_s = ((a**2 * DEVIATION**2 + b**2).sqrt(), (a_s**2 * DEVIATION**2 + b_s**2).sqrt())
    exact = b * x / spread**2
    closed = x * (a * a_s * DEVIATION**2 + b * b_s) / spread**2
    assert torch.allclose(consistency.ddim(ours, exact, x, t, edge), closed, rtol=1e-5)
    ended = x * spread_s / spread
    averaged = (ended / a_s - x / a) / (b_s / a_s - b / a)  # the noise that a student of the whole phase predicts
    assert torch.allclose(consistency.ddim(ours, averaged, x, t, edge), ended, rtol=1e-5)
    assert not torch.allclose(closed, ended, rtol=1e-2), "one step of DDIM with the noise at t is not the flow"


class Linear:
    """A teacher, student and target that predict the noise as a factor of x, for each timestep."""

    def __init__(self, teacher: Tensor, student: Tensor) -> None:
        self.given, self.unet = teacher, student

    @contextmanager
    def teacher(self) -> Iterator[Tensor]:
        yield self.given

    @contextmanager
    def target(self) -> Iterator[Tensor]:
        yield self.unet


def of_gaussian(ours: DDPMScheduler) -> Tensor:
    """Return the (1000,) factors of the teacher: the exact noise of Gaussian data."""
    a, b = factors(ours, torch.arange(1000))
    return b / (a**2 * DEVIATION**2 + b**2)


def of_whole_phases(ours: DDPMScheduler, teacher: Tensor, phases: int, steps: int) -> Tensor:
    """Return the (1000,) factors with which one step to the edge is where `steps` steps of DDIM of `teacher` end."""
    student = torch.zeros(1000, dtype=torch.float64)
    timesteps = consistency.grid(ours, steps)
    for t in timesteps.tolist():
        edge = int(consistency.lower_edge(ours, phases, torch.tensor(t)))
        moved = torch.ones((), dtype=torch.float64)
        for at in range(t, edge, -1000 // steps):
            (a, b), (c, d) = factors(ours, torch.tensor(at)), factors(ours, torch.tensor(at - 1000 // steps))
            moved = moved * (c * (1 - b * teacher[at]) / a + d * teacher[at])
        (a, b), (c, d) = factors(ours, torch.tensor(t)), factors(ours, torch.tensor(edge))
        student[t] = (moved - c / a) / (d - c * b / a)
    return student


def measured(ours: DDPMScheduler, model: Linear, given: NormalDistillRecipe) -> float:
    def conditioned(noise: Tensor, guidance_scale: float) -> Any:
        assert (guidance_scale == given.guidance_scale) == (noise is model.given), "the teacher alone is guided"
        return lambda x, t: noise[t][:, None, None, None] * x

    torch.manual_seed(0)
    latents = DEVIATION * torch.randn(64, 1, 4, 4, dtype=torch.float64)
    return float(loss(model, ours, given, latents, conditioned))  # type: ignore[arg-type]


@pytest.mark.parametrize("phases", [1, 2, 4])
def test_the_loss_is_zero_for_the_student_that_jumps_to_the_edge_and_for_no_other(phases: int) -> None:
    ours, given = schedule(), phased(phases, loss="l2")
    teacher = of_gaussian(ours)
    right = of_whole_phases(ours, teacher, phases, given.solver_steps)
    assert measured(ours, Linear(teacher, right), given) < 1e-12
    for other in (teacher.clone(), of_whole_phases(ours, teacher, 2 * phases, 200)):
        assert measured(ours, Linear(teacher, other), given) > 1e-6


def test_without_phases_it_is_the_loss_of_latent_consistency() -> None:
    ours, given = schedule(), recipe(loss="l2")
    assert (given.phases, given.sampler, given.solver_steps) == (None, "lcm", 50)
    teacher = of_gaussian(ours)
    found = measured(ours, Linear(teacher, 0.9 * teacher), given)
    torch.manual_seed(0)
    clean = DEVIATION * torch.randn(64, 1, 4, 4, dtype=torch.float64)
    noise, t = torch.randn(clean.shape).to(clean), 20 * torch.randint(0, 50, (64,)) + 19
    errors = []
    for x, index in zip(ours.add_noise(clean, noise, t), t.tolist(), strict=True):
        earlier = max(index - 20, 0)
        (a, b), (c, d) = factors(ours, torch.tensor(index)), factors(ours, torch.tensor(earlier))
        moved = c * (1 - b * teacher[index]) / a * x + d * teacher[index] * x
        ends = []
        for at, sample in ((index, x), (earlier, moved)):
            (a, b), scaled = factors(ours, torch.tensor(at)), 10.0 * at
            skip, out = 0.25 / (scaled**2 + 0.25), scaled / (scaled**2 + 0.25) ** 0.5
            ends.append(skip * sample + out * (1 - b * 0.9 * teacher[at]) / a * sample)
        errors.append((ends[0] - ends[1]).square().mean())
    assert found == pytest.approx(float(torch.stack(errors).mean()), rel=1e-5)


def test_recipes_of_before_are_read_and_their_runs_continued(tmp_path: Path) -> None:
    given = recipe()
    file = tmp_path / "recipe.yaml"
    file.write_text("\n".join(line for line in dump(given).splitlines() if not line.startswith("phases")))
    assert read(NormalDistillRecipe, file) == given
    pin(given, file)
    with pytest.raises(UsageError, match=r"started with phases=None, now 2; use another folder"):
        pin(phased(2), file)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["phases=3"], "phases=3: must divide the 1000 timesteps of the noise, for example 1, 2, 4, 5, 8, 10"),
        (["phases=4"], "a multiple of 50 and of 4 that divides 1000; use solver_steps=100"),
        (["phases=4", "solver_steps=300"], "solver_steps=300: .*; use solver_steps=100"),
        (["phases=2"], "steps=4: 2 phases are sampled in 2 steps; use steps=2"),
        (["phases=0"], "phases: Input should be greater than or equal to 1"),
    ],
)
def test_phases_that_do_not_fit_are_refused_in_one_line(settings: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        override(NORMAL["bundled"], settings)
    assert "\n" not in str(refused.value)
    assert override(NORMAL["bundled"], ["phases=4", "solver_steps=100"]).sampler == "ddim-trailing"


def test_a_foundation_with_other_timesteps_is_refused() -> None:
    other = DDPMScheduler.from_config(sd15.SCHEDULER | {"num_train_timesteps": 500})
    with pytest.raises(UserError, match="phases=4: the noise of the foundation has 500 timesteps; 1000 are needed"):
        consistency.lower_edge(other, 4, torch.tensor([499]))


def test_phases_are_sampled_with_edges_in_common_only_in_their_multiples() -> None:
    """What docs/distillation.md says of other numbers of steps."""
    ours = schedule()
    sampler = samplers.build("ddim-trailing", ours)

    def visited(steps: int) -> list[int]:
        sampler.set_timesteps(steps)
        return [*sampler.timesteps.tolist(), END]

    edges = set(visited(4))
    for steps in range(1, 17):
        crossed = any(early > edge > late for early, late in itertools.pairwise(visited(steps)) for edge in edges)
        assert crossed == (steps % 4 != 0), steps
