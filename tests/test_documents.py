"""The documents: links, commands, files and names in them exist, and every page is in the site's menu."""

import ast
import pkgutil
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from cytosynth import cli
from cytosynth.synthesis.settings import PipelineSettings

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "results").glob("*.md"))]
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CARDS = sorted((ROOT / "src/cytosynth/bundled").rglob("README.md"))
WRITTEN = ("csv", "geojson", "json", "jsonl", "md", "png", "safetensors", "sha256", "tif", "txt", "yaml", "zip")
TOP = ("src", "docs", "tests", "examples", "benchmarks", "results")
SOURCES = [
    path.relative_to(ROOT).as_posix()
    for top in TOP
    for ending in ("py", "sh", "ipynb")
    for path in (ROOT / top).rglob(f"*.{ending}")
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")


def anchors(text: str) -> set[str]:
    """Return the anchors that a git host gives the headings of `text`."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in LINK.findall(FENCED.sub("", page.read_text())):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


def test_tests_that_are_named_exist() -> None:
    there = {
        (file.name, name)
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    named = re.findall(r"(test_\w+\.py)::(test_\w+)", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(named) > 30
    assert not set(named) - there


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text()
    nav = str(yaml.safe_load(menu)["nav"])
    for page in (ROOT / "docs").glob("*.md"):
        assert f"'{page.name}'" in nav, f"{page.name}: add it to nav in mkdocs.yml"


def test_the_readme_names_its_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert "`make demo`" in text and "`make test`" in text


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each `cytosynth ...` in the code of `page`: blocks, fenced or indented, and inline code."""
    text = page.read_text().replace("\\\n", " ")
    lines = [line.strip() for block in FENCED.findall(text) for line in block.splitlines()]
    lines += re.findall(r"^ {4,}(cytosynth .*)$", FENCED.sub("", text), re.MULTILINE)
    lines += [said.replace(r"\|", "|") for said in INLINE.findall(FENCED.sub("", text))]
    for line in lines:
        if line.startswith("cytosynth ") and "COMMAND" not in line:
            words = shlex.split(line, comments=True)
            several = next((word for word in words[:3] if "|" in word), "")  # `cytosynth distill normal|cell RUN`
            for one in several.split("|"):
                yield [one if word == several else word for word in words]


@cache
def program() -> Any:
    """Return the command line with all its commands."""
    for module in pkgutil.iter_modules(cli.__path__):
        import_module(f"{cli.__name__}.{module.name}")
    return typer.main.get_command(cli.app)


@pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_in_documents_exist_with_their_options(page: Path) -> None:
    for words in commands(page):
        command, rest = program(), words[1:]
        while rest and rest[0] in getattr(command, "commands", {}):
            command, rest = command.commands[rest[0]], rest[1:]
        assert not rest or not hasattr(command, "commands"), f"{words}: no such command"
        known = {option for parameter in command.params for option in parameter.opts}
        unknown = [word for word in rest if word.startswith("--") and word.split("=")[0] not in known | {"--help"}]
        assert not unknown, f"{' '.join(words)}: {unknown}"


@pytest.mark.parametrize("page", [*GUIDES, *CARDS], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_targets_settings_and_names_in_documents_exist(page: Path) -> None:
    """Files and folders of the repository, names in them, targets of make, settings of the pipeline."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for said in INLINE.findall(FENCED.sub("", page.read_text())):
        if target := re.match(r"make ([a-z-]+)", said):
            assert target[1] in targets, said
        elif setting := re.fullmatch(r"(cell|normal|gate)\.(\w+)", said):
            stage = PipelineSettings.model_fields[setting[1]].annotation
            assert setting[2] in stage.model_fields, said  # type: ignore[union-attr]
        elif named := re.fullmatch(r"([\w/]+\.(?:py|sh|ipynb))(?:: (\w+))?", said):
            found = [file for file in SOURCES if f"/{file}".endswith(f"/{named[1]}")]
            assert found, said
            assert not named[2] or any(named[2] in defined(ROOT / file) for file in found), said
        elif re.match(rf"({'|'.join(TOP)})/[\w/.*]*$", said):
            assert list(ROOT.glob(said)), said
        elif dotted := re.fullmatch(rf"([a-z_]+)\.(?!(?:{'|'.join(WRITTEN)})$)([A-Za-z_]+)(?:\(\))?", said):
            found = [file for file in SOURCES if file.endswith(f"/{dotted[1]}.py")]
            assert not found or any(dotted[2] in defined(ROOT / file) for file in found), said


def defined(file: Path) -> set[str]:
    """Return the names that the module `file` defines."""
    names = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_the_architecture_page_has_every_package_on_its_floor() -> None:
    """The order of the floors is the one that import-linter checks."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    floors = [set(layer.split(" | ")) for layer in contract["layers"] if layer != "__main__"]
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    shown = [name for row in rows for name in re.findall(r"`(\w+)(?:/|\.py)`", row)]
    for floor in floors:
        assert set(shown[: len(floor)]) == floor
        shown = shown[len(floor) :]
    assert not shown
    named = {path.stem for path in (ROOT / "src/cytosynth").iterdir() if not path.name.startswith("_")}
    assert named - {"bundled", "py"} == set().union(*floors)
