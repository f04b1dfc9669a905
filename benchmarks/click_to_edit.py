"""The cost of a click in the studio compared with the edit itself: `python benchmarks/click_to_edit.py IMAGE [DEVICE]`.

Both are measured in one run, in turns, on the same image, box, seeds and settings: the time from the page's request to
the finished edit with its pair of images and the gate's words, and that of `CellEditor.edit`, which `cytosynth edit`
calls. Prints the medians.
"""

import http.client
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn

from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.cell.patch import enlarge
from cytosynth.data import image_files
from cytosynth.studio.models import Models
from cytosynth.studio.server import Studio
from cytosynth.synthesis.settings import PipelineSettings

REPEATS = 5
ROLES = ("foundation", "normal", "cell", "detector")


class Page:
    """Asks the studio as its page does."""

    def __init__(self, port: int, key: str) -> None:
        self.port, self.cookie = port, ""
        self.cookie = self._raw("GET", f"/?key={key}")[1].split(";")[0]

    def _raw(self, method: str, path: str, value: Any = None) -> tuple[bytes, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request(method, path, None if value is None else json.dumps(value), {"Cookie": self.cookie})
        answer = connection.getresponse()
        found = answer.read(), answer.headers.get("set-cookie", "")
        connection.close()
        return found

    def ask(self, method: str, path: str, value: Any = None) -> Any:
        """Return what the studio answers."""
        return json.loads(self._raw(method, f"/api{path}", value)[0])

    def edit(self, project: str, values: dict[str, Any]) -> None:
        """Make an edit and wait until it is painted."""
        task = self.ask("POST", f"/projects/{project}/edit", {"do": "put", **values})["task"]
        while (said := self.ask("GET", f"/tasks/{task}"))["state"] in ("waiting", "running"):
            pass
        assert said["state"] == "done", said


def main(path: Path, device: str) -> None:
    """Measure and print."""
    settings = PipelineSettings.model_validate({"cell": {"batch": 1}})
    editor = CellEditor.load(device=device)
    chosen = editor.settled(settings.cell, real=True)
    pixels = image_files.read(path)
    height, width = pixels.shape[:2]
    box = (width / 2 - 20.0, height / 2 - 20.0, width / 2 + 20.0, height / 2 + 20.0)
    region = enlarge(box, chosen.box_scale or 1.0, width, height)
    names = dict.fromkeys(ROLES, "bundled") | {"gate": "nucleus"}
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio([path.parent], Path(folder), Models(names, device, settings))
        server = uvicorn.Server(uvicorn.Config(studio.start(), port=0, log_level="error"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        page = Page(server.servers[0].sockets[0].getsockname()[1], studio.key)
        project = page.ask("POST", "/projects", {"kind": "own", "folder": "0"})["id"]
        values = {"id": "a", "image": path.name, "box": box, "category": "HSIL"}
        page.edit(project, {**values, "seed": 1000})
        alone, clicks = [], []
        for seed in range(REPEATS):
            begun = time.perf_counter()
            editor.edit(pixels, [PlannedEdit(region, "HSIL", seed)], chosen)
            alone.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            page.edit(project, {**values, "seed": seed})
            clicks.append(time.perf_counter() - begun)
        server.should_exit = True
        thread.join()
    edit, click = statistics.median(alone), statistics.median(clicks)
    print(
        f"{device}: edit {edit:.3f} s, click {click:.3f} s, difference {click - edit:+.3f} s (medians of {REPEATS})",
        flush=True,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "cpu")
