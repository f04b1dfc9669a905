"""The vocabulary: Bethesda cell categories, the paper's prompts, and the colour of each category."""

from typing import Final

NILM: Final = "NILM"
ABNORMAL: Final = ("ASC-US", "ASC-H", "LSIL", "HSIL")
ONE_CLASS: Final = "abnormal"
"""Every cell that is not NILM, where classes are not told apart."""
CATEGORIES: Final = (NILM, *ABNORMAL)

NORMAL_PROMPT: Final = "A normal cervical cytopathological image"
"""Section III-B: the fixed prompt of the Normal Image Generator."""

COLOURS: Final = {
    NILM: (46, 160, 67),
    "ASC-US": (255, 176, 0),
    "ASC-H": (254, 97, 0),
    "LSIL": (100, 143, 255),
    "HSIL": (220, 38, 127),
    "SCC": (120, 94, 240),
}
OTHER_COLOUR: Final = (90, 90, 90)


def abnormal_prompt(category: str) -> str:
    """Return the prompt of the Abnormal Cell Synthesizer for `category` (Section III-C)."""
    return f"A cervical cytopathological image with {category} cell"


def colour(category: str) -> tuple[int, int, int]:
    """Return the RGB colour (0-255) in which boxes of `category` are drawn."""
    return COLOURS.get(category, OTHER_COLOUR)


NORMAL_LABELS = frozenset({"Negative", NILM, "Normal"})
