"""Intervals and agreement, against scipy, a published table, and by hand."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from reconlab.errors import ReconlabError
from reconlab.study.statistics import bootstrap, fleiss_kappa, share


@pytest.mark.parametrize(("votes", "of"), [(0, 7), (7, 7), (3, 11), (2840, 4000), (3443, 4000)])
def test_interval_is_clopper_pearson(votes, of):
    expected = binomtest(votes, of).proportion_ci(0.95, method="exact")
    found = share(votes, of)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.share == votes / of


def test_no_votes_say_nothing():
    assert share(0, 0) == (0, 0, None, 0.0, 1.0)
    with pytest.raises(ReconlabError, match="8 votes of 7"):
        share(8, 7)


def test_kappa_of_fleiss_1971():
    """The worked example of ten subjects, fourteen raters and five categories: P̄ = 0.378, P̄e = 0.213, κ = 0.210."""
    counts = np.array(
        [[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
         [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]]
    )  # fmt: skip
    assert fleiss_kappa(counts) == pytest.approx(0.20993, abs=5e-5)


def test_kappa_by_hand_with_unequal_numbers():
    # Pairs that agree: 1 of 1 and 1 of 3 (2 + 1 votes): mean 2/3. Votes: 4 of 5 for the first answer:
    # by chance 0.64 + 0.04 = 0.68. The item of one vote counts nowhere.
    counts = np.array([[2, 0], [2, 1], [0, 1]])
    assert fleiss_kappa(counts) == pytest.approx((2 / 3 - 0.68) / 0.32)


def test_kappa_where_nothing_can_be_said():
    assert fleiss_kappa(np.array([[3, 0], [3, 0]])) is None
    assert fleiss_kappa(np.array([[1, 0], [0, 1]])) is None
    assert fleiss_kappa(np.array([[3, 0], [0, 3]])) == 1


def test_bootstrap_of_equal_people_has_no_width():
    votes = np.tile([1.0, 1.0, 0.0, 1.0], (9, 1))
    assert bootstrap(votes, items=False) == (0.75, 0.75)
    low, high = bootstrap(votes, items=True)
    assert low < 0.75 < high == 1.0


def test_bootstrap_of_stubborn_people_is_as_wide_as_their_number_says():
    """Each of 40 people always votes the same: 2000 votes are worth 40, and the exact interval is far too narrow."""
    votes = np.repeat(np.arange(40) < 24, 50).reshape(40, 50).astype(float)
    low, high = bootstrap(votes, items=False)
    deviation = math.sqrt(0.6 * 0.4 / 40)
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.08)
    exact = share(1200, 2000)
    assert high - low > 5 * (exact.high - exact.low)


def test_bootstrap_counts_missing_votes_nowhere():
    votes = np.array([[1.0, np.nan], [np.nan, 1.0], [1.0, 1.0]])
    assert bootstrap(votes, items=False) == (1.0, 1.0)


def test_one_person_has_no_bootstrap():
    assert bootstrap(np.ones((1, 5)), items=False) is None
    assert bootstrap(np.ones((5, 1)), items=True) is None
