"""Few steps (`--fast`): the distilled weights of a run, and the settings that they bring. Imports no torch."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..adapters import distilled
from ..config import assignments, override
from ..errors import UsageError, UserError
from ..io.bundled import BUNDLED, bundled
from .settings import PipelineSettings

STAGES: tuple[distilled.Stage, ...] = ("normal", "cell")


@dataclass(frozen=True)
class Fast:
    """Distilled weights by stage: 'bundled', a folder, a run or a file. None: none."""

    normal: str | None = None
    cell: str | None = None

    @property
    def by_stage(self) -> dict[distilled.Stage, str]:
        """The weights by stage, for stages that have some."""
        return {stage: name for stage in STAGES if (name := getattr(self, stage)) is not None}

    def settings(self, made: Collection[str] = ()) -> dict[str, object]:
        """Return their settings: sampler and steps from their card, and no guidance, which the weights include.

        Of a stage whose `fast_cell` or `fast_normal` is among the models by which a plan was `made`, there are none:
        the plan has them.
        """
        found: dict[str, object] = {}
        for stage, weights in self.by_stage.items():
            if f"fast_{stage}" in made:
                continue
            _, card = distilled.place(weights, stage)
            found |= {f"{stage}.{name}": value for name, value in card.settings().items()}
        return found

    def over(self, settings: PipelineSettings) -> PipelineSettings:
        """Return complete `settings` with what the weights set, but for a fall of the strength that is set already."""
        own = self.settings()
        if settings.cell.fall is not None:
            own.pop("cell.fall", None)
        return override(settings, assignments(own))


NOT = Fast()


def asked(
    fast: bool, given: Mapping[distilled.Stage, str | None], models: Mapping[str, str], option: str = "--"
) -> Fast:
    """Return the distilled weights of a run.

    Args:
        fast: take the bundled ones of each stage for which none are given.
        given: by stage that the run has.
        models: the user's names of `foundation`, `normal` and `cell`. option: prefix of option names in messages.

    Raises UsageError if the bundled weights are requested for the user's own models, UserError if there are none.
    """
    chosen = dict(given)
    for stage in given:
        if fast and given[stage] is None:
            _check(stage, models, option)
            chosen[stage] = BUNDLED
    return Fast(**chosen)


def _check(stage: distilled.Stage, models: Mapping[str, str], option: str) -> None:
    """Raise the error that says why the bundled distilled weights of `stage` cannot be taken."""
    for role in ("foundation", stage):
        if models.get(role, BUNDLED) != BUNDLED:
            raise UsageError(
                f"{option}fast: the bundled few-step weights fit the bundled models only, not {role} {models[role]}; "
                f"distil yours (cytosynth distill {stage} RUN) and give {option}fast-{stage} RUN"
            )
    try:
        bundled(f"fast/{stage}")
    except UserError:
        raise UserError(
            f"{option}fast: this installation has no few-step weights of stage {STAGES.index(stage) + 1}; make some "
            f"(cytosynth distill {stage} RUN) and give {option}fast-{stage} RUN, or leave {option}fast out"
        ) from None
