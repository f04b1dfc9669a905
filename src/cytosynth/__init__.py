"""CytoSynth: annotated synthetic cervical cytology by two-stage latent diffusion (arXiv 2402.14707).

Everything is imported when it is first used, so that `import cytosynth` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import (
        Edited,
        Pipeline,
        check,
        convert,
        detect,
        edit,
        evaluate_detection,
        evaluate_fidelity,
        load_pipeline,
        read_dataset,
        synthesize,
        train,
    )

__version__ = "0.1.0"
__all__ = [
    "Edited",
    "Pipeline",
    "check",
    "convert",
    "detect",
    "edit",
    "evaluate_detection",
    "evaluate_fidelity",
    "load_pipeline",
    "read_dataset",
    "synthesize",
    "train",
]


def __getattr__(name: str) -> Any:
    """Return what `api` offers by `name`."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".api", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
