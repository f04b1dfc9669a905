"""One edit, in its image and in its patch."""

from dataclasses import dataclass

from ..annotations import Box
from ..data.image_files import Pixels
from . import patch
from .close_up import CloseUp
from .stain import Transfer


@dataclass(frozen=True)
class PlannedEdit:
    """One edit: the region to repaint (xyxy whole pixels), its category, its seed, and its own strength, if any."""

    box: Box
    category: str
    seed: int
    strength: float | None = None

    @classmethod
    def around(
        cls, box: Box, box_scale: float, size: tuple[int, int], category: str, seed: int, strength: float | None = None
    ) -> "PlannedEdit":
        """Return the edit of the cell in `box`: its region is `box_scale` times as wide, inside (width, height)."""
        return cls(patch.enlarge(box, box_scale, *size), category, seed, strength)


@dataclass(frozen=True)
class Place:
    """An edit in its patch.

    Attributes:
        window: (size, size, 3) pixels of the patch.
        edit: its box in pixels of the patch.
        close_up: the part of the patch that is enlarged.
        transfer: to the stain of the training images, if its image is of another.
    """

    window: Pixels
    edit: PlannedEdit
    close_up: CloseUp
    transfer: Transfer | None
