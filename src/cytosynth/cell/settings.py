"""Settings of stage 2 and of the gate. Imports no torch, so that a mistake is reported at once."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ..data.sources import Source
from ..foundation.names import EVERY_TIMESTEP, PAPER_GUIDANCE, GuidanceInterval, SamplerName

TOGETHER, TOGETHER_ON_GPU = 4, 16
"""Default number of cells denoised at a time on a GPU, which batches of four small patches do not fill."""
Choice = Literal["random", "score", "size", "isolation"]


class EditSettings(BaseModel):
    """Settings of stage 2; steps and guidance are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sampler: SamplerName = "ddim"
    steps: int = Field(default=25, ge=1, le=500)
    guidance_scale: float = Field(default=PAPER_GUIDANCE, ge=1)
    guidance_rescale: float = Field(default=0.0, ge=0, le=1)
    guidance_interval: GuidanceInterval = EVERY_TIMESTEP
    box_scale: float | None = Field(
        default=None,
        ge=0.5,
        le=8,
        description="size of the edited region relative to the detected box; none: as in training",
    )
    strength: float = Field(default=1.0, gt=0, le=1, description="denoising strength (SDEdit), 0–1; 1: all timesteps")
    fall: float | None = Field(
        default=None, ge=0, le=1,
        description="share of the region's radius over which the strength falls to 0 at its edge; 0: the same "
        "everywhere, as in the paper; none: that of the synthesizer's editing.json",
    )  # fmt: skip
    paste: Literal["box", "patch"] = Field(
        default="box", description="put back only the edited region, or the whole decoded patch as in the paper"
    )
    outline: Literal["rounded", "box"] = Field(
        default="rounded", description="what is put back (paste=box): the ellipse in the region, or all of the region"
    )
    feather: int = Field(default=8, ge=0, le=64, description="blend inside the outline (paste=box), pixels")
    grain: Annotated[float, BeforeValidator(lambda value: 0.0 if value is None else value)] = Field(
        default=0.0, ge=0, le=2,
        description="fine texture added inside the region (paste=box), over what the autoencoder loses around it; for "
        "autoencoders that are soft",
    )  # fmt: skip
    """In 0.1.0 the value could be None, which added no grain to generated fields."""
    stain: bool | Literal["outside"] | None = Field(
        default=None,
        description="edit in the stain of the synthesizer's training images, then give the image's own back "
        "(cell/stain.py); outside: where an image's stain is outside their range; none: that, on real images, where "
        "training_images.json is beside the synthesizer",
    )
    nucleus_scale: dict[str, Annotated[float, Field(ge=0.25, le=4)]] | None = Field(
        default=None,
        description="factor on the diameter of the nucleus that is requested, by category, others 1; none: that of the "
        "synthesizer's editing.json",
    )
    batch: int | None = Field(
        default=None, ge=1, le=1024,
        description="cells denoised at a time, of one image or of several; none: 4, and 16 on a GPU",
    )  # fmt: skip

    @property
    def together(self) -> int:
        """Cells denoised at a time."""
        return self.batch or TOGETHER


class GateSettings(BaseModel):
    """Conditions under which `--gate` accepts an edited cell; all but nucleus and seam need a classifier.

    The defaults are our choices; the paper keeps every cell.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    tries: int = Field(default=3, ge=1, le=100, description="maximum attempts at a cell, each with another seed")
    top: int = Field(
        default=2, ge=0, description="the category must be among the classifier's N most likely ones (0: not required)"
    )
    probability: float = Field(default=0.5, gt=0, le=1, description="or has at least this probability")
    less_normal: bool = Field(
        default=True,
        description="NILM must be less likely than before the edit, and not the most likely class; not asked of "
        "cells edited into NILM",
    )
    seam: float | None = Field(default=1.5, gt=0, description="maximum seam ratio (cell/quality/seam.py); none: any")
    colour: float | None = Field(
        default=0.045, ge=0, le=1,
        description="maximum share of the region with colours that its image lacks (cell/quality/colour.py); none: any",
    )  # fmt: skip
    detail: float | None = Field(
        default=0.475,
        gt=0,
        description="minimum sharpness relative to the surroundings (cell/quality/sharpness.py); none: any",
    )
    grain: float | None = Field(
        default=2.2,
        gt=0,
        description="maximum grain relative to the surroundings (cell/quality/sharpness.py); none: any",
    )
    straightness: float | None = Field(
        default=1.6, gt=0,
        description="maximum straightness of the region's border (cell/quality/straight_edges.py); none: any",
    )  # fmt: skip
    appearance: bool | None = Field(
        default=None,
        description="ask for colour, detail, grain and straightness, whose limits were set on real images; none: on "
        "real images, not on generated fields",
    )  # fmt: skip
    copy_percentile: float = Field(
        default=1.0, ge=0, le=100,
        description="a copy is nearer to a crop of `reference` than this percentile of its crops are to each other",
    )  # fmt: skip
    nucleus: bool = Field(
        default=False, description="a nucleus must be at the centre of the box; without a classifier always required"
    )
    reference: list[Source] = Field(
        default=[], description="the synthesizer's training data, relative to --data-root; none: no search for copies"
    )

    def on(self, *, real: bool) -> "GateSettings":
        """Return the settings for `real` images or generated fields: with the criteria of appearance, or without."""
        if real if self.appearance is None else self.appearance:
            return self
        return self.model_copy(update=dict.fromkeys(("colour", "detail", "grain", "straightness")))
