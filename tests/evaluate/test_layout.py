"""Layout fidelity and AP of one class, with detectors that are as right as they are made to be."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from cytosynth.annotations import Cell
from cytosynth.data.sources import Sample
from cytosynth.errors import UserError
from cytosynth.evaluate.detection import scoring
from cytosynth.evaluate.detection.average_precision import Matches
from cytosynth.evaluate.detection.layout import average_precision, layout

PIXELS = np.zeros((8, 8, 3), dtype=np.uint8)


@dataclass
class Told:
    """A detector that finds what it is told, by the names of the images."""

    cells: dict[str, list[Cell]]
    categories: tuple[str, ...] = ("LSIL", "HSIL")
    digest: str = "told"

    def find_all(
        self, images: Iterable[tuple[str, np.ndarray]], count: int, threshold: float, condition: str
    ) -> list[list[Cell]]:
        return [self.cells[name] for name, _ in images]


def image(name: str, *cells: Cell) -> Sample:
    return Sample(name, "set", PIXELS, cells)


def cell(x: float, category: str, score: float | None = None) -> Cell:
    return Cell((x, 0, x + 10, 10), category, score)


REAL = [image("r0", cell(0, "LSIL"), cell(50, "HSIL")), image("r1", cell(0, "LSIL"))]
MADE = [image("s0", cell(0, "LSIL"), cell(50, "LSIL")), image("s1", cell(0, "HSIL"))]


def test_it_says_how_much_of_our_boxes_a_detector_of_real_images_finds() -> None:
    finder = Told({
        "r0": [cell(0, "LSIL", 0.9), cell(50, "HSIL", 0.8)], "r1": [cell(0, "LSIL", 0.7)],
        "s0": [cell(0, "LSIL", 0.9)], "s1": [cell(0, "LSIL", 0.6)],
    })  # fmt: skip
    report = layout(finder, {"synthetic": MADE, "real": REAL}, 0, {})
    rows = {row[0]: row[1:] for row in report.rows}
    # one class: two of three of our boxes found, both right: precision 1 up to a recall of 2/3, 67 of 101 points
    assert rows["abnormal"] == ("66.34", 3, 2, "100", 3, 2, 0.663)
    assert rows["LSIL"][0] == "50.5" and rows["LSIL"][3] == "100"
    assert rows["HSIL"][0] == "0" and rows["HSIL"][6] == 0.0


def test_it_needs_abnormal_cells_and_a_detector_of_them() -> None:
    finder = Told({"r0": [], "r1": [], "s0": [], "s1": []})
    with pytest.raises(UserError, match="knows no abnormal category"):
        layout(replace(finder, categories=("NILM",)), {"synthetic": MADE, "real": REAL}, 0, {})
    with pytest.raises(UserError, match="no abnormal cell on one side"):
        layout(finder, {"synthetic": [image("s0")], "real": REAL}, 0, {})


def test_its_interval_is_that_of_images_resampled_with_replacement() -> None:
    truth = [[cell(0, "LSIL")], [cell(0, "LSIL")], [cell(0, "LSIL")]]
    found = [[cell(0, "LSIL", 0.9)], [cell(0, "LSIL", 0.9)], []]
    value = average_precision(truth, found, "LSIL", 50, seed=3)
    matches, rng = Matches(truth, found, ("LSIL",)), np.random.default_rng(3)
    brute = [matches.scores(rng.integers(3, size=3)).map_50 for _ in range(50)]
    assert value == pytest.approx((matches.scores().map_50, *np.percentile(brute, (2.5, 97.5))))


def test_ap_of_one_class_forgives_the_wrong_class_and_counts_a_cell_once() -> None:
    truth = [image(str(n), cell(0, "LSIL"), cell(50, "SCC"), cell(80, "NILM")) for n in range(4)]
    right = {str(n): [cell(0, "HSIL", 0.9), cell(1, "LSIL", 0.5), cell(50, "LSIL", 0.8)] for n in range(4)}
    found = scoring.scored(Told(right), truth, 5)
    assert found["scores"][scoring.ABNORMAL_AP] == pytest.approx(1.0)
    assert found["scores"]["mAP.5"] < 1
    assert set(found["drawn"][scoring.ABNORMAL_AP]) == {1.0}
    normal = scoring.scored(Told({str(n): [] for n in range(4)}, ("NILM",)), truth, 2)
    assert scoring.ABNORMAL_AP not in normal["scores"]


def test_real_cells_that_were_kept_in_an_edited_image_are_neither_found_nor_missed() -> None:
    kept = replace(cell(80, "LSIL"), extra={"synthetic": False})
    made = [image("s0", cell(0, "LSIL"), kept), image("s1", cell(0, "HSIL"))]
    for found in ([], [cell(80, "LSIL", 0.95)]):
        finder = Told({
            "r0": [cell(0, "LSIL", 0.9), cell(50, "HSIL", 0.8)], "r1": [cell(0, "LSIL", 0.7)],
            "s0": [cell(0, "LSIL", 0.9), *found], "s1": [cell(0, "LSIL", 0.6)],
        })  # fmt: skip
        report = layout(finder, {"synthetic": made, "real": REAL}, 0, {})
        assert {row[0]: row[1:3] for row in report.rows}["abnormal"] == ("100", 2)
