"""MkDocs hook: links between pages and files of the repository work in the site as they do on a git host.

Pages link as a git host reads them: `../results/table1.md` from a page in `docs/`, `docs/studio.md` from the README.
The README is the site's first page. A file outside `docs/` to which a page links becomes part of the site: Markdown as
a page, anything else as it is. Links are rewritten to where the files lie in the site.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = "docs/"
HOME = "README.md"
ALWAYS = (HOME, "CONTRIBUTING.md", "CHANGELOG.md")
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)


def in_site(path: str) -> str:
    """Return where the file at `path` of the repository lies in the site's sources."""
    return "index.md" if path == HOME else path.removeprefix(DOCS)


def in_repository(path: str) -> str:
    """Return where the site's source `path` lies in the repository."""
    if path == "index.md":
        return HOME
    return DOCS + path if (ROOT / DOCS / path).exists() else path


def linked(text: str, page: str) -> Iterator[str]:
    """Yield the files of the repository to which `text`, the page at `page` of the repository, links."""
    for part in FENCE.split(text)[::2]:
        for found in LINK.finditer(part):
            path = target(found[2], page)
            if path:
                yield path


def target(link: str, page: str) -> str | None:
    """Return the path in the repository of the file that `link` on `page` means; None where it means none."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    return path if not path.startswith("..") and (ROOT / path).is_file() else None


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README and all files outside `docs/` that can be reached by links."""
    known = {in_repository(file.src_uri) for file in files}
    waiting = [*ALWAYS, *(path for path in known if path.endswith(".md"))]
    while waiting:
        path = waiting.pop()
        if path not in known:
            known.add(path)
            files.append(File.generated(config, in_site(path), abs_src_path=str(ROOT / path)))
        if path.endswith(".md") and (ROOT / path).exists():
            waiting += [one for one in linked((ROOT / path).read_text(), path) if one not in known]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page to where the files lie in the site."""
    source = page.file.src_uri
    here = in_repository(source)

    def rewritten(found: re.Match[str]) -> str:
        path = target(found[2], here)
        if path is None:
            return found[0]
        link = posixpath.relpath(in_site(path), posixpath.dirname(source) or ".")
        return f"{found[1]}{link}{found[3] or ''}{found[4]}"

    parts = FENCE.split(markdown)
    return "".join(LINK.sub(rewritten, part) if number % 2 == 0 else part for number, part in enumerate(parts))
