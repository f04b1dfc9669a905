"""Progress in a notebook: one line that is drawn again in its place."""

import pytest

from cytosynth.io import progress


def test_a_notebook_shows_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(progress.console, "is_jupyter", True)
    monkeypatch.setattr(progress, "REDRAWN", 0.0)
    with progress.meter("editing", 4) as bar:
        for number in range(4):
            bar.advance(f"cell {number}")
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.endswith("\n"), "a line, and not one for each step"
    drawn = said.strip().split("\r")
    assert [line.count("━") for line in drawn] == [7, 15, 22, 30]
    assert drawn[-1].startswith("editing ") and "4/4, 0:00 left cell 3" in drawn[-1]


def test_a_script_prints_no_bar(capsys: pytest.CaptureFixture) -> None:
    with progress.meter("editing", 2) as bar:
        bar.advance(amount=2)
    assert capsys.readouterr().err == "", "a line only after some seconds"
