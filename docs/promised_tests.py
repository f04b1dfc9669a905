"""MkDocs hook: a promise names tests that are there and carry a promise, so that `make soak` runs each of them."""

import ast
import logging
import re
from pathlib import Path

from mkdocs.structure.pages import Page

TESTS = Path(__file__).resolve().parents[1] / "tests"
PAGE = "reliability.md"
NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")
log = logging.getLogger("mkdocs.hooks.promised_tests")


def carrying() -> set[tuple[str, str]]:
    """Return file and function of each test that is marked with a promise."""
    found = set()
    for file in TESTS.rglob("test_*.py"):
        body = ast.parse(file.read_text()).body
        given = [node for node in body if isinstance(node, ast.Assign) and "mark.promise" in ast.unparse(node.value)]
        marks = {ast.unparse(target) for node in given for target in node.targets}  # a mark that has a name
        for node in body:
            if isinstance(node, ast.FunctionDef):
                own = [ast.unparse(mark) for mark in node.decorator_list]
                if any(mark in marks or "mark.promise" in mark for mark in own):
                    found.add((file.name, node.name))
    return found


def on_page_markdown(markdown: str, page: Page, **_: object) -> None:
    """Warn, which `--strict` makes an error, of each test named on the page of promises that is none."""
    if page.file.src_uri == PAGE:
        for file, name in sorted(set(NAMED.findall(markdown)) - carrying()):
            log.warning("%s names %s::%s: no test of a promise is called that", PAGE, file, name)
