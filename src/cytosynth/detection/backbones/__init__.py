"""Backbones of the detectors, a file for each family: `registry.BACKBONES` says where."""

from ...registry import BACKBONES
from .backbone import Backbone

__all__ = ["Backbone", "load"]


def load(name: str) -> Backbone:
    """Return the backbone `name`; raise UsageError if there is no such."""
    backbone: Backbone = BACKBONES.load(name)()
    return backbone
