"""Measures of made slides: a border that shows is found, one that does not is not."""

import numpy as np
import pytest
from scipy import ndimage

from cytosynth.evaluate.slide import border_distance, gradient_ratio, repetition


def field(seed: int = 0) -> np.ndarray:
    """A smooth random image without any border."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(0, 1, (1200, 1200, 3)), (3, 3, 0))
    return np.clip(128 + 300 * smooth, 0, 255).astype(np.uint8)


def test_only_a_border_that_shows_has_another_gradient() -> None:
    pixels = field()
    columns, rows = [200, 500, 800], [300, 700, 1000]
    plain = gradient_ratio(pixels, columns, rows)
    assert plain.interval.low < 1 < plain.interval.high and plain.interval.high - plain.interval.low < 0.1
    assert plain.pieces == 6 * 9
    stepped = pixels.astype(int)
    stepped[:, 500:] += 15
    shown = gradient_ratio(np.clip(stepped, 0, 255).astype(np.uint8), columns, rows)
    assert shown.interval.low > plain.interval.high
    by_hand = np.abs(np.diff(pixels[:1152].astype(float), axis=1)).mean(axis=2)  # 9 pieces of 128
    near = [*range(500 - 41, 500 - 4), *range(500 + 3, 500 + 40)]
    assert gradient_ratio(pixels, [500], []).value == pytest.approx(by_hand[:, 499].mean() / by_hand[:, near].mean())
    with pytest.raises(ValueError, match="no border"):
        gradient_ratio(pixels, [3], [1199])


def test_repeated_windows_and_borders_are_found_in_features() -> None:
    rng = np.random.default_rng(0)
    windows = rng.normal(size=(40, 8))
    windows[7] = windows[3] + 1e-3
    distances = repetition(windows)
    assert {int(index) for index in np.argsort(distances)[:2]} == {3, 7}
    expected = [np.delete(np.linalg.norm(windows - one, axis=1), index).min() for index, one in enumerate(windows)]
    assert np.allclose(distances, expected)
    same, floor = border_distance(rng.normal(size=(80, 8)), rng.normal(size=(80, 8)))
    other, _ = border_distance(rng.normal(1, 1, size=(80, 8)), rng.normal(size=(80, 8)))
    assert other > 5 * max(abs(same), abs(floor))
