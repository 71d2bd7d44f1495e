"""Which samples are asked about."""

import math

import numpy as np
import pytest

from reconlab.errors import ReconlabError
from reconlab.study.choose import Plan, choose, common_samples, top_samples
from reconlab.study.runs import Run, Sample, read_run, read_scores

NAMES = [Sample("chair", str(i), 0) for i in range(5)]


def table(folder, lines: dict[str, dict[str, object]], protocols: str = "{}"):
    (folder / "predictions").mkdir(parents=True)
    keys = list(dict.fromkeys(k for line in lines.values() for k in line))
    text = [",".join(["category", "id", *keys])]
    text += [",".join(["chair", name, *(str(line.get(k, "")) for k in keys)]) for name, line in lines.items()]
    (folder / "predictions" / "per_sample_rank0.csv").write_text("\n".join(text) + "\n")
    (folder / "run.json").write_text(f'{{"protocols": {protocols}}}')
    return folder


def test_top_is_the_mean_rank_over_metrics_and_both_runs(tmp_path):
    # Ranks of A: lfd 1 2 3 4 5, mvcnn 5 1 2 3 4; of B: lfd 3 1 2 4 5, mvcnn 2 1 3.5 3.5 5.
    # Means: 2.75, 1.25, 2.625, 3.625, 4.75: sample 1 is best, then 2, then 0.
    a = table(tmp_path / "a", {str(i): {"lfd": 10 * i, "mvcnn": m} for i, m in enumerate([0.9, 0.1, 0.2, 0.3, 0.4])})
    lfd, mvcnn = [30, 10, 20, 40, 50], [0.2, 0.1, 0.3, 0.3, 0.9]
    b = table(tmp_path / "b", {str(i): {"lfd": lfd[i], "mvcnn": mvcnn[i]} for i in range(5)})
    both = [(a, NAMES), (b, NAMES)]
    assert [s.id for s in top_samples(both, ("lfd", "mvcnn"), 0.2)] == ["1"]
    assert [s.id for s in top_samples(both, ("lfd", "mvcnn"), 0.5)] == ["1", "2", "0"]  # 2.5, rounded up
    assert [s.id for s in top_samples(both, ("lfd",), 0.4)] == ["1", "0"]  # mean ranks 2, 1.5, 2.5, 4, 5


def test_higher_is_better_where_the_protocol_says_so(tmp_path):
    protocols = '{"fscore": {"fscore": {"higher_is_better": true}}}'
    lines = {"0": {"fscore": 0.1}, "1": {"fscore": 0.9}, "2": {"fscore": 0.5, "fscore/failed": "True"}}
    run = table(tmp_path / "a", lines, protocols)
    assert read_scores(run, ("fscore",), NAMES[:3]) == {"fscore": [-0.1, -0.9, math.inf]}
    assert [s.id for s in top_samples([(run, NAMES[:3])], ("fscore",), 1.0)] == ["1", "0", "2"]


def test_missing_metric_names_the_command(tmp_path):
    run = table(tmp_path / "a", {"0": {"cd": 1}})
    with pytest.raises(ReconlabError, match=r"no values per sample of lfd, mvcnn.*reconlab evaluate .*--metrics lfd"):
        read_scores(run, ("lfd", "mvcnn"), NAMES[:1])


def test_missing_sample_unknown_direction_and_text(tmp_path):
    run = table(tmp_path / "a", {"0": {"lfd": 1, "mine": 2}})
    with pytest.raises(ReconlabError, match="no values of chair/1"):
        read_scores(run, ("lfd",), NAMES[:2])
    with pytest.raises(ReconlabError, match="in which direction 'mine' is better"):
        read_scores(run, ("mine",), NAMES[:1])
    with pytest.raises(ReconlabError, match="the value lfd of 0 is 'wide'"):
        read_scores(table(tmp_path / "b", {"0": {"lfd": "wide"}}), ("lfd",), NAMES[:1])


def test_views_of_a_run_are_read_from_names_or_tables(data, make_run, tmp_path):
    every = read_run(make_run(tmp_path / "every", data, 1.0, suffix="_view3"))
    assert {s.view for s in every.files} == {3}
    one = read_run(make_run(tmp_path / "one", data, 1.0, view=2))
    assert {s.view for s in one.files} == {2}
    assert {(s.category, s.id) for s in every.files} == {(s.category, s.id) for s in one.files}


def test_a_shape_may_be_called_view(tmp_path, data, make_run):
    name = next(iter(read_run(make_run(tmp_path / "a", data, 1.0)).files))
    run = make_run(tmp_path / "b", data, 1.0, names=[(name.category, name.id)])
    (run / "predictions" / name.category / f"{name.id}.obj").rename(
        run / "predictions" / name.category / "x_view1.obj"
    )
    (run / "predictions" / "per_sample_rank0.csv").write_text(f"category,id\n{name.category},x_view1\n")
    assert list(read_run(run).files) == [Sample(name.category, "x_view1", 0)]


def runs(a: list[Sample], b: list[Sample]) -> tuple[Run, Run]:
    from pathlib import Path

    return tuple(Run(Path(n), dict.fromkeys(s, Path("x.obj")), {}) for n, s in (("A", a), ("B", b)))


def test_unequal_views_are_said():
    with pytest.raises(ReconlabError, match="A was given view 0 of chair/0, B view 4"):
        common_samples(*runs([NAMES[0], NAMES[1]], [Sample("chair", "0", 4), NAMES[1]]))
    every = [Sample("chair", "0", v) for v in range(3)]
    assert common_samples(*runs(every, [every[2]])) == [every[2]]


def test_no_common_sample_is_said():
    with pytest.raises(ReconlabError, match="A and B have no sample in common"):
        common_samples(*runs(NAMES[:2], NAMES[2:]))


def test_pairs_share_the_questions_and_every_sample_can_come():
    both = runs(NAMES, NAMES)
    found = {s.id for seed in range(20) for s in choose([both], Plan(2), (), np.random.default_rng(seed))[0][:2]}
    assert found == {s.id for s in NAMES}
    with pytest.raises(ReconlabError, match=r"5 are the samples that A and B have in common, fewer than the 6 quest"):
        choose([both, both], Plan(11), (), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"questions": 0}, "--questions is 0"),
        ({"checks": -1}, "--checks is -1"),
        ({"top": 0.0}, "--top is 0"),
        ({"top": 20}, "--top is 20; expected a share"),
        ({"views": 4}, "--views is 4; expected 1 to 3"),
        ({"size": 8}, "--size is 8"),
        ({"by": ()}, "--by names no metric"),
    ],
)
def test_numbers_out_of_range(given, said):
    with pytest.raises(ReconlabError, match=said):
        Plan(**given)
