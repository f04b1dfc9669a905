"""The synthesizer of the studio: it can be stopped between two steps, and caches its patches."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from ..cell import patch
from ..cell.edit import CellEditor, PlannedEdit
from ..cell.settings import EditSettings
from ..data.image_files import Pixels

KEPT = 400
"""Patches remembered: 80 MB."""


class Painter(CellEditor):
    """A CellEditor whose patches are the same to the bit, but painted once.

    A patch depends on its window, box, category, seed and strength and on the settings alone, so it may be kept: saving
    what is on the screen then costs no second denoising.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """See CellEditor."""
        super().__init__(*args, **kwargs)
        self.remembered: OrderedDict[str, Pixels] = OrderedDict()
        self.check: Callable[[], None] = lambda: None
        self.model.unet.register_forward_pre_hook(lambda *_: self.check())

    def paint(self, requests: Sequence[tuple[Pixels, PlannedEdit]], settings: EditSettings) -> list[Pixels]:
        """Return what `CellEditor.paint` does; `check` is called before each step and may raise."""
        keys = [_key(pixels, edit, settings) for pixels, edit in requests]
        missing = [index for index, key in enumerate(keys) if key not in self.remembered]
        found = {key: self.remembered[key] for key in keys if key in self.remembered}
        if missing:
            painted = super().paint([requests[index] for index in missing], settings)
            found |= {keys[index]: new for index, new in zip(missing, painted, strict=True)}
        for key in keys:
            self.remembered[key] = found[key]
            self.remembered.move_to_end(key)
        while len(self.remembered) > KEPT:
            self.remembered.popitem(last=False)
        return [found[key] for key in keys]


def _key(pixels: Pixels, edit: PlannedEdit, settings: EditSettings) -> str:
    height, width = pixels.shape[:2]
    patch.check_size(width, height)
    at = patch.corner(edit.box, width, height)
    seen = pixels if settings.stain else patch.window(pixels, at)  # the stain is that of the whole image
    digest = hashlib.sha256(seen.tobytes())
    said = [patch.inner(edit.box, at), edit.category, edit.seed, edit.strength, settings.model_dump_json()]
    digest.update(repr(said).encode())
    return digest.hexdigest()
