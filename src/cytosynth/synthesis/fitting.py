"""Whether settings and plans can be met: by a synthesizer, before models are loaded, and by the images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import boxes
from ..annotations import Cell
from ..cell import choose, editing, patch
from ..cell.settings import EditSettings
from ..errors import UsageError
from ..io.bundled import model_folder
from . import plan as plans
from .plan import Plan, PlanProblem, place_of
from .settings import PipelineSettings


def followed(
    path: Path | None, settings: PipelineSettings, cell: str, known: Sequence[str]
) -> tuple[Plan, Path] | None:
    """Return the plan at `path` and the path, if any, after `check_fit`; `known` are the categories of `cell`."""
    plan = (plans.read(path, known), path) if path else None
    check_fit(settings, cell, plan)
    return plan


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


def fit(plan: Plan, path: Path, sizes: Mapping[str, tuple[int, int]], box_scale: float) -> None:
    """Raise PlanProblem when a box lies outside its image or edited regions overlap.

    Args:
        plan: what was read from `path`.
        path: named in the message.
        sizes: width and height of each image by file name, as it will be edited; of one that cannot be read, none.
        box_scale: how much larger than boxes the edited regions are.
    """
    for number, image in enumerate(plan.images):
        if image.file_name not in sizes:
            continue
        where = f"{path}: {place_of(number, image.file_name)}"
        width, height = sizes[image.file_name]
        if (image.width or width, image.height or height) != (width, height):
            raise PlanProblem(f"{where}: planned for {image.width}x{image.height}, but it is {width}x{height}")
        for index, cell in enumerate(image.cells):
            x0, y0, x1, y1 = cell.box
            if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
                raise PlanProblem(
                    f"{where}: cells[{index}]: {boxes.quoted(cell.box)} is outside the image of {width}x{height}"
                )
        regions = [patch.enlarge(cell.box, box_scale, width, height) for cell in image.cells]
        pair = boxes.overlapping(regions)
        if pair:
            raise PlanProblem(
                f"{where}: cells[{pair[0]}] and cells[{pair[1]}]: their edited regions, {box_scale:g} times their "
                "boxes, overlap; move one, or set cell.box_scale"
            )


def spare(
    plan: Plan, path: Path, sizes: Mapping[str, tuple[int, int]], kept: Mapping[str, Sequence[Cell]], cell: EditSettings
) -> None:
    """Raise PlanProblem when an edit would change an annotated cell that is `kept`, by file name of the image.

    The other arguments are as for `fit`; `cell` are the settings of stage 2.
    """
    for number, image in enumerate(plan.images):
        for index, planned in enumerate(image.cells):
            one = [Cell(planned.box, planned.category)]
            if image.file_name in sizes and not choose.clear_of(
                kept.get(image.file_name, ()), one, sizes[image.file_name], cell
            ):
                raise PlanProblem(
                    f"{path}: {place_of(number, image.file_name)}: cells[{index}]: what an edit of "
                    f"{boxes.quoted(planned.box)} changes overlaps an annotated abnormal cell, which stays "
                    "(--keep-abnormal); move or remove it"
                )
