"""Settings of the pipeline and of its two stages. Imports no torch, so that mistakes are reported at once."""

import math
from collections.abc import Sequence
from typing import ClassVar

from pydantic import ConfigDict, Field

from ..bethesda import ABNORMAL, NILM
from ..cell.settings import Choice, EditSettings, GateSettings
from ..config import Settings
from ..errors import UsageError
from ..foundation.names import DISTILLED, EngineName, PrecisionSetting, PredictionType
from ..normal.settings import GenerateSettings
from ..variation.centre import Centre
from ..variation.style import Style


class PipelineSettings(Settings):
    """All settings of a run except its number of images; the defaults are the paper's (Section IV)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    RENAMED: ClassVar = {"fewest": "min_cells", "most": "max_cells", "mix": "category_weights"}
    seed: int = Field(default=0, ge=0, lt=2**63)
    normal: GenerateSettings = GenerateSettings()
    cell: EditSettings = EditSettings()
    threshold: float = Field(default=0.5, ge=0, le=1, description="score threshold of NILM cells")
    min_cells: int = Field(default=1, ge=0, description="minimum number of cells to edit in an image")
    max_cells: int = Field(default=8, ge=1, description="maximum number of cells to edit in an image")
    choice: Choice = Field(
        default="random", description="order in which cells are chosen: random, best score, largest, most isolated"
    )
    category_weights: dict[str, float] = Field(
        default=dict.fromkeys(ABNORMAL, 1.0),
        description="relative frequency of each category; with NILM, some cells are edited into normal ones, so that "
        "the look of an edit does not tell a detector the class",
    )
    counts: dict[str, int] = Field(
        default={}, description="number of cells of each category in the whole run; replaces category_weights"
    )
    gate: GateSettings = GateSettings()
    scale: float = Field(default=1.0, gt=0, le=8, description="factor by which your images are resized before editing")
    keep_abnormal: bool = Field(
        default=False, description="edit also your images with annotated abnormal cells, which stay, with their boxes"
    )
    precision: PrecisionSetting = Field(
        default="fp32",
        description="precision of the diffusion networks; auto (default of the commands): bf16 where the machine is "
        "fast at it, else fp32; the run records which",
    )
    compiled: bool = Field(
        default=False, description="compile the networks (torch.compile): a slow start, faster afterwards"
    )
    engine: EngineName | None = Field(
        default="torch",
        description="what computes the diffusion networks: torch, or openvino (CPUs, extra [openvino]); none (default "
        "of the commands): torch, or as written where a run continues",
    )
    threads: int | None = Field(
        default=None, ge=1, le=4096,
        description="CPU threads; none: PyTorch's number, which the run records; another number rounds differently",
    )  # fmt: skip
    prediction_type: PredictionType | None = Field(
        default=None, description="what the foundation's U-Net predicts; none: as its files state"
    )
    style: Style | None = Field(
        default=None, description="style of a centre's fields (--style-from), which images take"
    )
    vary: Centre | None = Field(default=None, description="variations that each image gets (--vary)")


COMMAND = PipelineSettings(precision="auto", engine=None)
"""What a command begins with; what an experiment writes into its recipe is float32 unless it says otherwise."""
EVENLY = PipelineSettings().category_weights
"""The paper's four categories, equally frequent."""


def of_model(settings: PipelineSettings, categories: Sequence[str]) -> PipelineSettings:
    """Return `settings` for a synthesizer of `categories`: all but NILM evenly, if it has none of the default ones."""
    if settings.category_weights != EVENLY or set(EVENLY) <= set(categories):
        return settings
    abnormal = [name for name in categories if name != NILM] or categories
    return settings.model_copy(update={"category_weights": dict.fromkeys(abnormal, 1.0)})


def check(settings: PipelineSettings, images: int | None = None, categories: Sequence[str] = ABNORMAL) -> None:
    """Raise UsageError for settings that contradict each other, or that `images` images cannot meet.

    `categories` are those into which the synthesizer can edit cells.
    """
    settings = of_model(settings, categories)
    if settings.min_cells > settings.max_cells:
        raise UsageError(f"min_cells ({settings.min_cells}) must not exceed max_cells ({settings.max_cells})")
    weights = settings.category_weights
    if not weights or min(weights.values()) < 0 or not 0 < sum(weights.values()) < math.inf:
        raise UsageError(f"category_weights {weights}: weights must be at least 0, one above 0, and their sum finite")
    for stage, chosen in (("normal", settings.normal), ("cell", settings.cell)):
        if chosen.sampler in DISTILLED and chosen.steps > 50:
            raise UsageError(f"{stage}.steps={chosen.steps}: {chosen.sampler} takes at most 50")
    for name, asked in (("category_weights", weights), ("counts", settings.counts)):
        unknown = sorted(set(asked) - set(categories))
        if unknown:
            raise UsageError(f"{name}: unknown category {unknown[0]!r}; choose one of {', '.join(categories)}")
    if settings.counts and min(settings.counts.values()) < 1:
        raise UsageError(f"counts {settings.counts}: must be whole numbers above 0")
    total = sum(settings.counts.values())
    if images is not None and total > images * settings.max_cells:
        raise UsageError(
            f"counts: {total} cells requested, but {images} images of at most {settings.max_cells} cells hold "
            f"{images * settings.max_cells}; increase --count or max_cells"
        )
