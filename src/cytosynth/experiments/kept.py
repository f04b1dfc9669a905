"""Writing the tables of a folder again from the results stored in it."""

from pathlib import Path

from ..augmentation.efficiency import table
from ..augmentation.efficiency.table import Kept
from ..config import validated
from ..errors import UserError
from ..io import plain, report

KEPT = "_kept.json"
"""End of the names of files with the results of `experiment efficiency` (its `kept.json`), trial by trial."""


def tables(folder: Path) -> list[str]:
    """Write the tables of `folder` again and return their names.

    `NAME_kept.json` becomes `NAME` and `NAME_gains`, each `.md`, `.json` and `.csv`, and `NAME.png`; for a table
    without stored trainings, `.md` and `.csv` are written from its `.json`. Raises UserError if there is none.
    """
    names: list[str] = []
    computed: set[str] = set()
    for path in sorted(folder.glob(f"*{KEPT}")):
        name = path.name.removesuffix(KEPT)
        kept = validated(Kept, plain.load(path), str(path))
        table.write(kept.read(), folder, name, f"{name}_gains")
        computed |= {name, f"{name}_gains"}
    for path in sorted(folder.glob("*.json")):
        if path.name.endswith(KEPT) or path.stem in computed:
            continue
        found = report.read(path)
        if found is not None:
            found.write(folder, path.stem)
            names.append(path.stem)
    if not names and not computed:
        raise UserError(f"{folder}: no table there (.json) nor results to set one from (NAME{KEPT})")
    return sorted({*names, *computed})
