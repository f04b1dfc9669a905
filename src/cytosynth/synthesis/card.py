"""The data card of a synthetic data set: its contents, models, settings and limits."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..annotations import DataSet, Image
from ..io import wording
from ..provenance import NOTICES

CLASSES = (
    "The bundled cell synthesizer shows categories only roughly: nuclei of LSIL are too large, and ASC-H can hardly "
    "be distinguished from other categories. On CRIC's test images an independent classifier assigned the intended "
    "category to 0.34 of the cells edited into ASC-US, 0.17 of ASC-H, 0.51 of LSIL and 0.27 of HSIL, with `--fast` to "
    "0.31, 0.021, 0.24 and 0.083; of real cells of those categories 0.68, 0, 0.49 and 0.68 (results/cells.md and "
    "results/cells_fast.md of the repository). Some boxes are almost empty unless the run had `--gate nucleus`."
)
ATTRIBUTION = """The bundled models were trained on, and this data set therefore derives from:

- CRIC Cervix (Rezende et al., *CRIC searchable image database as a public platform for conventional pap smear
  cytology data*, Scientific Data 8:151, 2021, doi 10.1038/s41597-021-00933-8), CC BY 4.0;
- Mendeley LBC (Hussain et al., *Liquid based-cytology Pap smear dataset for automated multi-class diagnosis of
  pre-cancerous and cervical cancer lesions*, doi 10.17632/zddtpgzv63), CC BY 4.0.
"""


def text(
    data: DataSet,
    models: Mapping[str, str],
    settings: Mapping[str, Any],
    problems: Sequence[str],
    bundled: bool,
    origin: str,
    sections: Sequence[str] = (),
    images: Iterable[Image] | None = None,
) -> str:
    """Return the data card as Markdown.

    Args:
        data: the annotated images.
        models: name and weights' hash of each model by role.
        settings: what the run was asked for.
        problems: lines on what was skipped.
        origin: 'synthetic', or 'real-to-synthetic' where the user's images were edited.
        bundled: whether bundled models took part, whose training data must be credited.
        sections: further lines of Markdown, before the limits.
        images: all of them, where `data` does not hold them.
    """
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    empty = 0
    for image in data.images if images is None else images:
        counts.update(cell.category for cell in image.cells)
        sizes[f"{image.width}x{image.height}"] += 1
        empty += not image.cells
    lines = [
        "# Synthetic cervical cytology",
        "",
        f"**{NOTICES[origin]}**",
        "",
        f"{wording.amount(sizes.total(), 'image')} "
        f"({', '.join(f'{n} of {s}' for s, n in sorted(sizes.items()))}), "
        f"{wording.amount(counts.total(), 'annotated cell')}, {wording.amount(empty, 'image')} without cells. "
        "Boxes: `annotations.json` (COCO). "
        "How each image was made: `provenance.jsonl`. `preview.png` shows the first images with their boxes.",
        "",
        "| category | cells |",
        "|---|---|",
        *(f"| {name} | {counts.get(name, 0)} |" for name in data.categories),
        "",
        "## Models",
        "",
        "| role | model | weights |",
        "|---|---|---|",
        *(f"| {role} | {name} |" for role, name in models.items()),
        "",
        "## Settings",
        "",
        "```",
        *(f"{key}: {value}" for key, value in settings.items()),
        "```",
        "",
        *sections,
        "## Limits",
        "",
        "The cells were placed by a generative model and have not been assessed by a pathologist. Use them to train or "
        "stress a detector, together with real annotated images, and test only on real ones.",
    ]
    if models.get("cell", "").startswith("bundled "):
        lines += ["", CLASSES]
    if problems:
        lines += ["", "## Skipped", "", *(f"- {line}" for line in problems)]
    if data.licences or "derived_from" in data.info:
        lines += ["", "## The edited images", ""]
        lines += [f"- licence: {entry.get('name')} {entry.get('url', '')}".rstrip() for entry in data.licences]
        lines += [f"- {key}: {value}" for key, value in data.info.get("derived_from", {}).items()]
    if bundled:
        lines += ["", "## Sources and licences", "", ATTRIBUTION.rstrip()]
    return "\n".join(lines) + "\n"


def models_of(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the models that made the images of `records`, as `text` takes them: several of a role by number."""
    named: dict[str, str] = {}
    for record in records:
        given = record.get("models")
        for role, model in given.items() if isinstance(given, dict) else ():
            label, number = role, 2
            while named.get(label, model) != model:
                label, number = f"{role} ({number})", number + 1
            named[label] = model
    return {role: " | ".join(str(model).rsplit(" ", 1)) for role, model in named.items()}
