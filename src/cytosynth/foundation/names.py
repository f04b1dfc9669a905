"""Names of foundations, samplers and precisions, and the data that bundled weights may be trained on. No torch."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from ..data.sources import Source
from ..io.bundled import BUNDLED as BUNDLED
from ..registry import SAMPLERS

STABLE_DIFFUSION: Final = "stable-diffusion-v1-5/stable-diffusion-v1-5"


CC_BY = [Source(root="cric", scale=0.5), Source(root="lbc_x40", scale=0.5)]
"""The sets that bundled weights may be trained on, at the x20-like working scale (nucleus about 10 px)."""


SamplerName = Annotated[str, AfterValidator(SAMPLERS.known)]


PredictionType = Literal["epsilon", "v_prediction"]
"""Prediction types of a denoiser: the noise, or the velocity."""


PAPER_GUIDANCE: Final = 5.0
"""Guidance scale of both stages in the paper (Section IV-A)."""
MOST_GUIDANCE: Final = 100.0


EVERY_TIMESTEP: Final = (0, 1000)


def _ordered(interval: tuple[int, int]) -> tuple[int, int]:
    """Return `interval`; raise ValueError if it is empty."""
    if interval[0] > interval[1]:
        raise ValueError(f"{list(interval)}: give the lower timestep first")
    return interval


Timestep = Annotated[int, Field(ge=0, le=1000)]
GuidanceInterval = Annotated[
    tuple[Timestep, Timestep],
    AfterValidator(_ordered),
    Field(description="first and last timestep (1000: noise) with guidance; at others it costs nothing"),
]


DISTILLED = ("lcm", "tcd")
"""Samplers of models distilled for few steps; they have 50 timesteps."""


Precision = Literal["fp32", "bf16", "fp16"]
PrecisionSetting = Literal["auto", "fp32", "bf16", "fp16"]
"""Precision as the user gives it; `auto` is chosen by the machine (`precision.resolved`)."""


EngineName = Literal["torch", "openvino"]
"""What computes the networks."""
