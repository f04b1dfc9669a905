"""Licences: those that the required packages state, and the terms that a foundation passes on to weights."""

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .errors import EnvironmentProblem
from .io.bundled import BUNDLED

PACKAGE = "cytosynth"
EXTRAS = ("slides", "studio", "parquet", "ray", "tensorboard", "openvino")
ALWAYS = "always"
UNSTATED = "not stated in its metadata"
LONGEST = 300
"""Maximum length of a stated licence, since some packages state the whole text."""
STABLE_DIFFUSION = re.compile(r"(stable[-_ ]?diffusion|\bsd[-_ ]?v?1[-_. ]?[45]\b)", re.IGNORECASE)
OPENRAIL = (
    "Stable Diffusion 1.x is licensed under CreativeML Open RAIL-M. Its use restrictions (paragraph 5 and Attachment "
    "A) apply to weights derived from it, these included: pass them on, with a copy of the licence, to everyone who "
    "gets these weights, and say that you changed the model. Among them: the model and what is derived from it may not "
    "be used to provide medical advice or to interpret medical results. Images made with these weights may not be used "
    "against the licence either (paragraph 6)."
)
OTHER = "The licence of the foundation applies to these weights too. If it is, or derives from, Stable Diffusion: "


class Licensed(NamedTuple):
    """A package: its version here, the licence it states, and what needs it: 'always' or names of extras."""

    name: str
    version: str
    licence: str
    needed_by: str


def packages() -> list[Licensed]:
    """Return the packages that the program needs, those of the extras that are installed too, by name.

    Raises EnvironmentProblem if the program is not installed as a package.
    """
    try:
        needs = [Requirement(text) for text in distribution(PACKAGE).requires or []]
    except PackageNotFoundError:
        raise EnvironmentProblem(
            f"{PACKAGE} is not installed as a package, which records what it needs; `pip install .`"
        ) from None
    needed: dict[str, list[str]] = {}
    for extra in ("", *EXTRAS):
        for name in _reached([one for one in needs if _wanted(one, {extra})]):
            needed.setdefault(name, []).append(extra or ALWAYS)
    found = {name: _installed(name) for name in sorted(needed)}
    return [
        Licensed(there.metadata["Name"], there.version, licence(there), _said(needed[name]))
        for name, there in found.items()
        if there
    ]


def licence(package: Distribution) -> str:
    """Return the licence that `package` states: its SPDX expression, else its classifiers, else its own words.

    Where it states none, the first line of its licence file.
    """
    stated = package.metadata
    if expression := (stated.get_all("License-Expression") or [""])[0]:
        return str(expression)[:LONGEST]
    names = [text.rpartition(" :: ")[2] for text in stated.get_all("Classifier") or [] if text.startswith("License ::")]
    if names and set(names) != {"OSI Approved"}:
        return ", ".join(names)[:LONGEST]
    own = _first_line((stated.get_all("License") or [""])[0])
    if own and own != "UNKNOWN":
        return own
    files = [file for file in package.files or [] if file.name.upper().startswith(("LICENSE", "LICENCE"))]
    texts = [_first_line(Path(str(file.locate())).read_text(encoding="utf-8", errors="replace")) for file in files]
    return f"by its {files[0].name}: {texts[0]}" if files else UNSTATED


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:LONGEST]


def passed_on(foundation: str) -> str:
    """Return the terms that the licence of `foundation` passes on to derived weights, empty for the bundled one."""
    if foundation == BUNDLED:
        return ""
    if STABLE_DIFFUSION.search(foundation):
        return OPENRAIL
    return OTHER + OPENRAIL


def _wanted(need: Requirement, extras: set[str]) -> bool:
    """Return whether `need` holds here for one of `extras`; '' is none."""
    return need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras)


def _reached(needs: list[Requirement]) -> set[str]:
    """Return the names of the installed packages that `needs`, and what these need, name."""
    seen: set[tuple[str, str]] = set()
    waiting = list(needs)
    while waiting:
        need = waiting.pop()
        name = canonicalize_name(need.name)
        for extra in ("", *need.extras):
            there = _installed(name)
            if there and (name, extra) not in seen:
                seen.add((name, extra))
                waiting += [one for one in map(Requirement, there.requires or []) if _wanted(one, {extra})]
    return {name for name, _ in seen}


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _said(needed_by: list[str]) -> str:
    return ALWAYS if ALWAYS in needed_by else ", ".join(needed_by)
