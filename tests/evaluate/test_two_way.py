"""The two-way bootstrap, Holm's correction and the smallest gain, against computations by hand and by brute force."""

import numpy as np
import pytest
from scipy.stats import t

from cytosynth.evaluate import two_way


def test_holm_by_hand() -> None:
    assert two_way.holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert two_way.holm({"x": 0.03, "y": 0.02}) == pytest.approx({"x": 0.04, "y": 0.04})
    assert two_way.holm({"x": 0.9, "y": 0.8}) == {"x": 1.0, "y": 1.0}
    assert list(two_way.holm({"z": 0.2, "a": 0.1})) == ["z", "a"]


def made(rng: np.random.Generator, chains: int, images: int, between: float, gain: float = 0.0) -> tuple:
    """Return the differences of `chains` on `images` test images and on 300 resamplings of these."""
    cells = gain + rng.normal(0, between, (chains, 1)) + rng.normal(0, 0.1, (1, images))
    draws = np.random.default_rng(0).integers(images, size=(300, images))
    return cells.mean(axis=1), cells[:, draws].mean(axis=2)


def test_the_two_way_bootstrap_is_that_of_a_brute_force() -> None:
    observed, drawn = made(np.random.default_rng(3), 5, 20, 0.05, 0.1)
    samples = two_way.resampled(observed, drawn, 20)
    rng = np.random.default_rng(1)
    brute = []
    for _ in range(6000):
        column = int(rng.integers(drawn.shape[1]))
        rows = rng.integers(5, size=4)  # one fewer than there are
        brute.append(np.mean([observed[k] + (drawn[k, column] - observed[k]) * np.sqrt(20 / 19) for k in rows]))
    assert samples.shape == (3000,)
    assert samples.mean() == pytest.approx(np.mean(brute), abs=0.004)
    assert samples.std() == pytest.approx(np.std(brute), rel=0.06)
    for quantile in (0.025, 0.975):
        assert np.quantile(samples, quantile) == pytest.approx(np.quantile(brute, quantile), abs=0.01)


def test_its_variance_is_that_of_both_sources() -> None:
    observed, drawn = made(np.random.default_rng(5), 6, 30, 0.05)
    found = two_way.spread(observed, drawn, 30)
    assert found.chains == pytest.approx(observed.var(ddof=1) / 6)
    assert found.images == pytest.approx(drawn.mean(axis=0).var(ddof=1) * 30 / 29)
    # (K - 1) of K drawn: sum of squares / K / (K - 1), that is s^2 / K
    assert two_way.resampled(observed, drawn, 30).std() == pytest.approx(found.error, rel=0.08)


@pytest.mark.parametrize("between", [0.0, 0.03, 0.2])
def test_five_chains_rarely_call_a_gain_that_is_not_there(between: float) -> None:
    rng = np.random.default_rng(11)
    found = [two_way.gain(*made(rng, 5, 25, between), 25) for _ in range(400)]
    wrong = sum(one.low > 0 or one.high < 0 for one in found) / 400
    assert wrong < 0.08
    assert sum((one.p or 1) < 0.05 for one in found) / 400 == pytest.approx(wrong, abs=0.03)


def test_a_plain_percentile_of_five_chains_would() -> None:
    """Why the interval is widened: percentiles of means of five draws of five."""
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(500):
        own = rng.normal(0, 1, 5)
        low, high = np.quantile(own[rng.integers(5, size=(1000, 5))].mean(axis=1), (0.025, 0.975))
        wrong += low > 0 or high < 0
    assert wrong / 500 > 0.11


def test_a_large_gain_is_found_and_a_single_chain_has_no_interval() -> None:
    found = two_way.gain(*made(np.random.default_rng(0), 5, 25, 0.02, 0.3), 25)
    assert found.low is not None and found.low > 0.15
    assert found.p is not None and found.p < 0.01
    alone = two_way.gain([0.2], np.zeros((1, 9)), 9)
    assert (alone.value, alone.low, alone.p) == (0.2, None, None)


def test_resamplings_without_a_cell_are_left_out() -> None:
    observed, drawn = made(np.random.default_rng(4), 5, 20, 0.05, 0.1)
    holed = drawn.copy()
    holed[:, ::3] = np.nan
    found = two_way.gain(observed, holed, 20)
    assert found.low is not None and np.isfinite([found.low, found.high]).all()


def test_the_smallest_gain_is_found_four_times_in_five() -> None:
    spread = two_way.Spread(0.02**2, 0.0, 6, 25)
    smallest = two_way.smallest_gain(spread)
    assert smallest == pytest.approx((t.ppf(0.975, 5) + t.ppf(0.8, 5)) * 0.02)
    assert spread.of(24).error == pytest.approx(0.01)
    rng = np.random.default_rng(0)
    own = rng.normal(smallest, 0.02 * np.sqrt(6), (4000, 6))  # s^2 / K is the variance of the mean
    error = own.std(axis=1, ddof=1) / np.sqrt(6)
    assert np.mean(own.mean(axis=1) / error > t.ppf(0.975, 5)) == pytest.approx(0.8, abs=0.05)
