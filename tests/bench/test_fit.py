"""Exponents: exact power laws, noise, offsets, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reconlab.bench.fit import fit_growth
from reconlab.errors import ReconlabError

SIZES = st.lists(st.integers(1, 100_000), min_size=4, max_size=9, unique=True).map(sorted)
EXPONENT = st.floats(-2, 3)
FACTOR = st.floats(1e-6, 1e3)


@settings(deadline=None)
@given(sizes=SIZES, exponent=EXPONENT, factor=FACTOR)
def test_an_exact_power_law_is_found(sizes, exponent, factor):
    found = fit_growth(sizes, [factor * n**exponent for n in sizes], expected=2)
    assert found.exponent == pytest.approx(exponent, abs=1e-6)
    assert found.local == pytest.approx(exponent, abs=1e-6)
    assert math.log(found.factor) == pytest.approx(math.log(factor), abs=1e-4)
    assert found.residual == pytest.approx(1, abs=1e-6)
    assert found.error == pytest.approx(0, abs=1e-6)
    # Exponents close to 0 leave rounding alone to explain
    assert abs(exponent) < 1e-6 or found.r2 == pytest.approx(1, abs=1e-6)


@settings(deadline=None)
@given(sizes=SIZES, exponent=EXPONENT, seed=st.integers(0, 1000), noise=st.floats(0.001, 0.3))
def test_noise_moves_it_as_least_squares_must(sizes, exponent, seed, noise):
    seconds = np.array(sizes, float) ** exponent * np.exp(
        noise * np.random.default_rng(seed).uniform(-1, 1, len(sizes))
    )
    found = fit_growth(sizes, seconds.tolist(), expected=1)
    line = np.polynomial.Polynomial.fit(np.log(sizes), np.log(seconds), 1).convert()
    assert found.exponent == pytest.approx(line.coef[1], abs=1e-6)
    # The slope of noise of at most `noise` over the sizes' logarithms cannot be more than this
    x = np.log(sizes) - np.log(sizes).mean()
    assert abs(found.exponent - exponent) <= noise * np.abs(x).sum() / (x @ x) + 1e-9
    rest = np.log(seconds) - line(np.log(sizes))
    assert found.residual == pytest.approx(np.exp(np.abs(rest).max()), abs=1e-6)
    assert found.r2 <= 1


@settings(deadline=None)
@given(offset=st.floats(0.01, 100), rate=st.floats(0.01, 1), expected=st.sampled_from([1.0, 2.0]))
def test_a_fixed_offset_is_found_and_where_it_dominates(offset, rate, expected):
    sizes = [1, 2, 4, 8, 16, 32, 64]
    assume(all(abs(offset / (rate * n**expected) - 1) > 1e-3 for n in sizes))  # half and half is either
    found = fit_growth(sizes, [offset + rate * n**expected for n in sizes], expected)
    dominated = [n for n in sizes if offset > rate * n**expected]
    assert found.offset == pytest.approx(offset, rel=1e-4)
    assert found.offset_until == (dominated[-1] if dominated else None)
    assert found.exponent < expected
    assert found.exponent < found.local < expected


def test_the_standard_error_by_hand():
    # Logarithms 0, 1, 2, 3 of the sizes, 0, 1, 2, 4 of the times: slope 1.3, residuals .2, -.1, -.4, .3
    sizes = [math.exp(x) for x in (0, 1, 2, 3)]
    found = fit_growth(sizes, [math.exp(y) for y in (0, 1, 2, 4)], 1)
    assert found.exponent == pytest.approx(1.3)
    assert found.error == pytest.approx(math.sqrt(0.3 / 2 / 5))
    assert found.r2 == pytest.approx(1 - 0.3 / 8.75)
    assert found.local == pytest.approx(2)
    assert found.residual == pytest.approx(math.exp(0.4))


def test_times_that_do_not_grow():
    found = fit_growth([1, 10, 100, 1000], [2.0] * 4, expected=1)
    assert (found.exponent, found.r2, found.offset_until) == (pytest.approx(0), 1.0, 1000)
    assert found.offset == pytest.approx(2)


@pytest.mark.parametrize(
    ("sizes", "seconds", "named"),
    [
        ([1, 2, 3], [1, 1, 1], "at least 4"),
        ([1, 2, 3, 4], [1, 1, 1], "3 times"),
        ([1, 2, 2, 4], [1, 1, 1, 1], "rising"),
        ([4, 3, 2, 1], [1, 1, 1, 1], "rising"),
        ([0, 1, 2, 3], [1, 1, 1, 1], "positive"),
        ([1, 2, 3, 4], [1, 0, 1, 1], "positive"),
        ([1, 2, 3, 4], [1, math.nan, 1, 1], "finite"),
        ([1, 2, 3, 4], [1, math.inf, 1, 1], "finite"),
    ],
)
def test_refused(sizes, seconds, named):
    with pytest.raises(ReconlabError, match=named):
        fit_growth(sizes, seconds, 1)
