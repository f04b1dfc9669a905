"""The paper's figures: Table I by adapter, Tables II and III by detector and training data."""

from typing import Final

from .recipe import CUSTOM, OURS, REAL, REAL_TO_SYNTHETIC

FID: Final = {
    "textual-inversion": (132.2895, 114.3035),
    "svdiff": (73.2216, 8.1146),
    "custom-diffusion": (46.6576, 4.6000),
    "lora": (43.7446, 1.7587),
}
"""The paper's FID@ImageNet and FID@Cytopathology, of 1024x1024 fields drawn by tuned Stable Diffusion 1.5."""
PUBLISHED: Final[dict[str, dict[tuple[str, str], float]]] = {
    "Table II": {
        ("faster-rcnn", REAL): 14.9, ("faster-rcnn", CUSTOM): 15.3,
        ("faster-rcnn", REAL_TO_SYNTHETIC): 15.7, ("faster-rcnn", OURS): 15.6,
        ("retinanet", REAL): 15.6, ("retinanet", CUSTOM): 16.4,
        ("retinanet", REAL_TO_SYNTHETIC): 16.3, ("retinanet", OURS): 16.8,
        ("dino", REAL): 15.9, ("dino", CUSTOM): 17.0, ("dino", REAL_TO_SYNTHETIC): 17.3, ("dino", OURS): 17.8,
    },
    "Table III": {
        ("comparison-detector", REAL): 17.1,
        ("faster-rcnn", REAL): 20.9, ("faster-rcnn", OURS): 21.7,
        ("retinanet", REAL): 18.1, ("retinanet", OURS): 20.6,
        ("dino", REAL): 25.1, ("dino", OURS): 26.6,
    },
}  # fmt: skip
"""mAP (x 100)."""
