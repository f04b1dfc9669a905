"""A real browser for the tests: the machine's Chromium, driven by Playwright, which downloads none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DOCS = Path(__file__).parent.parent / "docs" / "images"
DESKTOP, TABLET = {"width": 1280, "height": 800}, {"width": 820, "height": 1180}


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield a browser that can reach this machine alone; skip where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here (`apt-get install chromium`)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-dev-shm-usage",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
        )
        yield browser
        browser.close()


def watched(browser: Any, **options: Any) -> tuple[Any, list[str], list[str]]:
    """Return a new page, the addresses that it asks for, and the errors that it meets; both lists grow."""
    context = browser.new_context(**{"viewport": DESKTOP, **options})
    page = context.new_page()
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.set_default_timeout(90_000)
    return page, asked, errors


def serious(page: Any) -> list[str]:
    """Return the serious and critical faults that axe-core finds on `page`; skip where axe-core is not installed."""
    axe = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    script = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    page.evaluate(script)
    found = page.evaluate("async () => (await axe.run(document)).violations")
    return [
        f"{fault['id']}: {fault['help']}: {[node['html'][:120] for node in fault['nodes'][:3]]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]


def screenshot(page: Any, name: str) -> None:
    """Write what `page` shows to docs/images/NAME.jpg where CYTOSYNTH_SCREENSHOTS is set."""
    if os.environ.get("CYTOSYNTH_SCREENSHOTS"):
        DOCS.mkdir(exist_ok=True)
        page.screenshot(path=DOCS / f"{name}.jpg", type="jpeg", quality=85)
