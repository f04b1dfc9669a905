"""Criteria for a cell of each category: those of the Bethesda System in our own words.

After Nayar and Wilbur (eds.), *The Bethesda System for Reporting Cervical Cytology*, 3rd edition, Springer 2015,
chapters 2, 4, 5 and 6. They help a trainee to compare cells; they are no diagnosis.
"""

from typing import Final, NamedTuple

from ..bethesda import NILM

SOURCE: Final = (
    "After Nayar R, Wilbur DC (eds.), The Bethesda System for Reporting Cervical Cytology, 3rd edition, Springer 2015; "
    "in our own words."
)


class Criteria(NamedTuple):
    """What cells of a category look like.

    Attributes:
        meaning: the name of the category in full.
        nucleus: its area against that of a normal intermediate cell's nucleus (about 35 µm²).
        chromatin: texture and darkness.
        ratio: nucleus to cytoplasm (N/C).
        membrane: outline of the nucleus.
        halo: koilocytic halo and other signs in the cytoplasm.
    """

    meaning: str
    nucleus: str
    chromatin: str
    ratio: str
    membrane: str
    halo: str


LABELS: Final = {
    "nucleus": "Nucleus against a normal intermediate nucleus",
    "chromatin": "Chromatin",
    "ratio": "Nucleus to cytoplasm (N/C)",
    "membrane": "Nuclear membrane",
    "halo": "Halo and cytoplasm",
}
CRITERIA: Final[dict[str, Criteria]] = {
    NILM: Criteria(
        "negative for intraepithelial lesion or malignancy",
        "The reference: an intermediate nucleus is about 35 µm² (7–8 µm across); a superficial one is small and dense.",
        "Fine and evenly spread, light enough to see through.",
        "Low: the cytoplasm is many times wider than the nucleus (less so in metaplastic and parabasal cells).",
        "Smooth, thin, round or oval.",
        "None. A pale zone around a normal nucleus may be glycogen or inflammation: its edge is soft.",
    ),
    "ASC-US": Criteria(
        "atypical squamous cells of undetermined significance",
        "Enlarged to about 2.5 to 3 times the area of an intermediate nucleus.",
        "Slightly darker than normal, still fairly even.",
        "Slightly raised; the cell has the cytoplasm of a mature squamous cell.",
        "Smooth or with a slight irregularity only.",
        "An incomplete or faint halo may hint at a viral effect, but not enough for LSIL.",
    ),
    "ASC-H": Criteria(
        "atypical squamous cells, cannot exclude HSIL",
        "Small cells: the nucleus is 1.5 to 2.5 times the normal area, of the size of a metaplastic cell's or larger.",
        "Darker than normal, sometimes uneven; less so than in a clear HSIL.",
        "High, near that of HSIL: a thin rim or a small dense body of cytoplasm.",
        "Somewhat irregular, without the sharp folds of a clear HSIL.",
        "No halo; cells lie single or in small groups and look like immature metaplasia.",
    ),
    "LSIL": Criteria(
        "low-grade squamous intraepithelial lesion",
        "Clearly enlarged, more than 3 times the area of an intermediate nucleus; two or more nuclei are common.",
        "Dark, even or smudged; nucleoli are not seen.",
        "Low to slightly raised: the cell itself is large and mature.",
        "Smooth to slightly irregular.",
        "A koilocyte has a sharp-edged clear halo with a thickened rim of cytoplasm; keep LSIL only if the nucleus is "
        "abnormal too.",
    ),
    "HSIL": Criteria(
        "high-grade squamous intraepithelial lesion",
        "Size varies: enlarged, but often no larger than in LSIL, in a small cell.",
        "Clearly dark, coarse or evenly dense.",
        "Markedly raised: the nucleus fills most of the cell.",
        "Irregular, with notches, folds and grooves.",
        "No halo as a rule; cytoplasm is thin and lacy, or dense and metaplastic.",
    ),
    "SCC": Criteria(
        "squamous cell carcinoma",
        "Varies strongly from cell to cell.",
        "Coarse, unevenly spread, with clear spaces; large nucleoli may be seen.",
        "High, though keratinised cells can have much cytoplasm.",
        "Irregular; shapes of whole cells too: spindles and tadpoles.",
        "Orange keratin, and old blood and debris of the tumour in the background.",
    ),
}


def said(category: str) -> dict[str, str]:
    """Return the criteria of `category` by label, empty for a category that the Bethesda System does not have."""
    found = CRITERIA.get(category)
    if found is None:
        return {}
    return {"Stands for": found.meaning} | {label: getattr(found, name) for name, label in LABELS.items()}
