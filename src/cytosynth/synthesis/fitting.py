"""Whether the settings of a run, or those of a plan, can be met by a synthesizer; asked before models are loaded."""

from pathlib import Path

from ..cell import editing
from ..errors import UsageError
from ..io.bundled import model_folder
from .plan import Plan, PlanProblem
from .settings import PipelineSettings


def check_fit(settings: PipelineSettings, cell: str, plan: tuple[Plan, Path] | None = None) -> None:
    """Raise UsageError for a setting of stage 2 that the synthesizer `cell` cannot meet.

    PlanProblem, which names the file, if it is a setting of the `plan` that is followed.
    """
    folder = model_folder(cell, "cell")
    problem = editing.lacking(settings.cell, editing.read(folder), (folder / editing.TRAINING_IMAGES).exists())
    if problem is None:
        return
    if plan and getattr(plan[0].settings.cell, problem.key) == problem.value:
        own = plan[0].models.get("cell", "it was made with")
        raise PlanProblem(f"{plan[1]}: settings.{problem}, or follow the plan with the synthesizer {own}")
    raise UsageError(str(problem))
