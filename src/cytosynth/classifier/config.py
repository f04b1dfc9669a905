"""The `config.json` next to a classifier's weights."""

from pydantic import BaseModel, ConfigDict, Field


class ClassifierConfig(BaseModel):
    """The configuration of a cell classifier and of its crops."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    architecture: str = Field(
        description="resnet50 or another classification network of torchvision, or efficientnet-lite0, 1 or 2"
    )
    classes: tuple[str, ...] = Field(min_length=2, description="names in the order of the outputs")
    size: int = Field(ge=16, le=2048, description="side of the crops, pixels")
    context: float = Field(default=1.5, ge=0.5, le=8, description="side of the crop relative to the box's longer side")
    mean: tuple[float, float, float] = Field(description="of RGB in 0..1")
    std: tuple[float, float, float]
    scale: dict[str, float] = Field(default={}, description="factor on the images of each training set")
    enlarged: int | None = Field(
        default=None,
        ge=16,
        le=2048,
        description="side to which crops are enlarged for the network, pixels; none: not enlarged",
    )
    views: int = Field(
        default=1, ge=1, le=8, description="number of flips and rotations over which probabilities are averaged"
    )
