import pytest
import torch

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.losses import Loss, WeightedSum
from reconlab.shapes import PointCloud


class Constant(Loss):
    """A loss of fixed value that counts its calls and remembers where training stood."""

    def __init__(self, value: float, needs: frozenset[str]) -> None:
        super().__init__()
        self.value, self.needs, self.calls, self.seen = value, needs, 0, []

    def forward(self, shape, batch):
        self.calls += 1
        return {"loss": torch.tensor(self.value), "part": torch.tensor(7.0)}

    def advance(self, step, total):
        self.seen.append((step, total))


SHAPE, BATCH = PointCloud(torch.zeros(1, 2, 3)), Batch(["a"], ["x"])


def two(**schedule) -> WeightedSum:
    terms = {"a": Constant(2.0, frozenset({"surface"})), "b": Constant(5.0, frozenset({"mesh"}))}
    return WeightedSum(terms, {"a": 1.0, "b": 0.1}, **schedule)


def test_sum_and_parts():
    result = two()(SHAPE, BATCH)
    assert float(result["loss"]) == pytest.approx(2.5)
    assert {k: float(v) for k, v in result.items() if k != "loss"} == {"a": 2, "a/part": 7, "b": 5, "b/part": 7}


def test_needs_of_all_terms():
    assert two(start={"b": 0.5}).needs == {"surface", "mesh"}


def test_schedule_by_hand():
    loss = two(start={"b": 0.5}, end={"a": 0.8})
    values = []
    for step in (0, 4, 5, 7, 8, 9):
        loss.advance(step, 10)
        values.append(round(float(loss(SHAPE, BATCH)["loss"]), 3))
    assert values == [2.0, 2.0, 2.5, 2.5, 0.5, 0.5]
    assert loss.terms["b"].calls == 4, "a term that does not count is not computed"
    assert loss.terms["a"].seen == [(s, 10) for s in (0, 4, 5, 7, 8, 9)], "each step is told once"


def test_an_empty_moment_is_an_error():
    loss = two(start={"a": 0.5, "b": 0.5})
    loss.advance(0, 10)
    with pytest.raises(ReconlabError, match="no term is active at 0%"):
        loss(SHAPE, BATCH)


def test_a_schedule_needs_an_end():
    with pytest.raises(ReconlabError, match="max_steps or max_epochs"):
        two(start={"b": 0.5}).advance(3, 0)
    two().advance(3, 0)


@pytest.mark.parametrize("name", ["loss", "a.b", "keys", "two words"])
def test_bad_names_of_terms(name):
    with pytest.raises(ReconlabError, match="a term cannot be called"):
        WeightedSum({name: Constant(1.0, frozenset())}, {name: 1.0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {"a": 1.0}}, r"terms are \['a', 'b'\] but weights are given for \['a'\]"),
        ({"start": {"c": 0.1}}, "start names 'c'"),
        ({"end": {"a": 1.5}}, r"end\.a is 1\.5"),
        ({"terms": {}, "weights": {}}, "name the same"),
    ],
)
def test_bad_settings(change, message):
    terms = {"a": Constant(1.0, frozenset()), "b": Constant(1.0, frozenset())}
    with pytest.raises(ReconlabError, match=message):
        WeightedSum(**{"terms": terms, "weights": {"a": 1.0, "b": 1.0}, **change})
