"""Families and splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reconlab.datasets.splits import check_fractions, family, group, read_groups, split
from reconlab.errors import ReconlabError


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("a__738-737-800", "b__Boeing_737_300", True),
        ("a__B737-ba", "b__static-b737-800-airberlin-ba", True),
        ("a__A319-A319", "b__Airbus_A320_200-american", True),
        ("a__A320-TAP", "a__B737-ba", False),
        ("a__MD90-md-90", "b__717-717", True),
        ("a__c172-bluen108av", "b__Cessna172_blue", True),
        ("a__F-15-lowpoly", "b__F-18-model", False),
        ("a__MD11cargo-ba", "b__MD_88-delta", False),
        ("a__KOFF_B-52", "a__KOFF_B17", True),  # not recognised: the number goes, the rest is equal
    ],
)
def test_aircraft_families(first: str, second: str, same: bool) -> None:
    assert (family("airplane", first) == family("airplane", second)) is same


def test_numbers_and_colours_do_not_make_a_family() -> None:
    assert len({family("car", n) for n in ("s__van", "s__van1", "s__van_white", "s__van-blue2")}) == 1
    assert family("chair", "s__737") == "s__737" or family("chair", "s__737") == "s_"
    assert family("chair", "12") == "12"


def test_geometry_joins_what_names_do_not() -> None:
    grids = np.zeros((3, 8, 8, 8), bool)
    grids[0, :4], grids[1, :4], grids[2, 5:] = True, True, True
    grids[1, 3, 0, 0] = False
    groups = group("chair", ["red", "armless", "tall"], grids)
    assert groups[0] == groups[1] != groups[2]
    assert len(set(group("chair", ["red", "armless", "tall"]).tolist())) == 3


def test_a_table_overrules_names(tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    path.write_text("shape,family\nchair/one,x\nchair/two,x\n# note\n")
    table = read_groups(path)
    assert table == {"chair/one": "x", "chair/two": "x"}
    groups = group("chair", ["one", "two", "three"], None, table)
    assert groups[0] == groups[1] != groups[2]


def test_bad_tables(tmp_path: Path) -> None:
    with pytest.raises(ReconlabError, match="cannot be read"):
        read_groups(tmp_path / "missing.csv")
    (tmp_path / "bad.csv").write_text("chair/one,x\nchair/two\n")
    with pytest.raises(ReconlabError, match="row 2"):
        read_groups(tmp_path / "bad.csv")


def test_splits_keep_families_together_and_sizes_near() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 200)
    groups = np.unique(groups, return_inverse=True)[1]
    names = [f"s{i:03d}" for i in range(200)]
    lists = split("chair", names, groups, (0.7, 0.15, 0.15), 0)
    assert sorted(n for members in lists.values() for n in members) == names
    where = {n: s for s, members in lists.items() for n in members}
    for g in range(groups.max() + 1):
        assert len({where[names[i]] for i in np.flatnonzero(groups == g)}) == 1
    assert 25 <= len(lists["test"]) <= 30
    assert 25 <= len(lists["val"]) <= 30
    assert lists == split("chair", names, groups, (0.7, 0.15, 0.15), 0)
    assert lists != split("chair", names, groups, (0.7, 0.15, 0.15), 1)


@pytest.mark.parametrize("count", [3, 4, 10])
def test_no_list_is_empty(count: int) -> None:
    names = [str(i) for i in range(count)]
    lists = split("c", names, np.arange(count), (0.9, 0.05, 0.05), 0)
    assert all(lists.values())


def test_one_family_is_trained_on() -> None:
    assert split("c", ["a", "b"], np.zeros(2, int), (0.5, 0.25, 0.25), 0) == {
        "train": ["a", "b"],
        "val": [],
        "test": [],
    }


def test_fractions() -> None:
    assert check_fractions((7, 1, 2)) == (0.7, 0.1, 0.2)
    with pytest.raises(ReconlabError, match="three fractions"):
        check_fractions((0.5, -0.1, 0.6))


def test_no_family_fills_a_list() -> None:
    groups = np.repeat(np.arange(61), [30, *[1] * 60])  # one family of 30 among singletons, lists of about 13
    for seed in range(5):
        lists = split("c", [f"{i:02d}" for i in range(90)], groups, (0.7, 0.15, 0.15), seed)
        assert {f"{i:02d}" for i in range(30)} <= set(lists["train"])
        assert len(lists["test"]) == len(lists["val"]) == 14
    groups = np.repeat(np.arange(65), [13, 13, *[1] * 63])  # 13 of 13 would fit a whole list
    lists = split("c", [f"{i:02d}" for i in range(89)], groups, (0.7, 0.15, 0.15), 0)
    assert {f"{i:02d}" for i in range(26)} <= set(lists["train"])
