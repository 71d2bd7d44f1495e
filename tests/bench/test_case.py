"""Whether contestants agree, and the shipped cases: that their contestants do, and what grows."""

import math
import subprocess
import sys

import pytest
import torch

from reconlab.bench.case import Contestant, Setting, check, difference
from reconlab.bench.cases_growth import GROWTHS, build_dataset
from reconlab.bench.catalogue import OPERATORS, choose, names
from reconlab.bench.peers import PEERS, choose_peers, installed
from reconlab.errors import ReconlabError

QUICK = [(o, c) for o in OPERATORS for c in o.cases if c.quick]
HERE = frozenset(name for name in PEERS if installed(name))


def gave(*numbers):
    return (torch.tensor(numbers),)


def test_difference_by_hand():
    assert difference(gave(3.0, 4.0), gave(3.0, 4.0)) == 0
    assert difference(gave(3.0, 4.5), gave(3.0, 4.0)) == pytest.approx(0.1)
    assert difference((*gave(1.0), *gave(2.2)), (*gave(1.0), *gave(2.0))) == pytest.approx(0.1), "the worst part"
    assert difference(gave(0.0), gave(0.0)) == 0
    assert difference(gave(1.0, math.inf), gave(1.0, math.inf)) == 0


@pytest.mark.parametrize(
    "answer",
    [gave(1.0), gave(1.0, math.nan), gave(1.0, math.inf), (*gave(1.0, 2.0), *gave(1.0)), (torch.zeros(2, 1),)],
)
def test_no_agreement_at_all(answer):
    assert difference(answer, gave(1.0, 2.0)) == math.inf
    assert difference(gave(1.0), gave(0.0)) == math.inf


def test_who_answers_otherwise_is_not_timed():
    def broken():
        raise RuntimeError("no kernel\nfor this")

    checked = check(
        {
            "ours": Contestant(lambda: torch.ones(2)),
            "close": Contestant(lambda: torch.tensor([1.0, 1.0005])),
            "far": Contestant(lambda: torch.tensor([1.0, 1.1])),
            "looser": Contestant(lambda: torch.tensor([1.0, 1.1]), tolerance=0.1),
            "another": Contestant(lambda: torch.tensor([7.0]), tolerance=None),
            "nothing": Contestant(lambda: torch.tensor([math.nan]), tolerance=None),
            "broken": Contestant(broken),
        }
    )
    assert list(checked.fit) == ["ours", "close", "looser", "another"]
    assert checked.differences["close"] == pytest.approx(0.0005 / math.sqrt(2), rel=1e-3)
    assert checked.differences["ours"] is checked.differences["another"] is None
    assert checked.problems == {
        "far": "its answer is off by 7.1e-02, more than 0.001",
        "nothing": "its answer is not finite",
        "broken": "RuntimeError: no kernel",
    }


@pytest.mark.parametrize("answer", [torch.tensor([math.nan]), None])
def test_without_the_first_nobody_is_timed(answer):
    checked = check({"ours": Contestant(lambda: answer), "theirs": Contestant(lambda: torch.ones(1))})
    assert checked.fit == {}
    assert list(checked.problems) == ["ours"]


@pytest.mark.parametrize(("operator", "case"), QUICK, ids=[f"{o.name}-{c.key}" for o, c in QUICK])
def test_contestants_of_every_operator_agree(operator, case):
    checked = check(case.build(Setting(peers=HERE)))
    assert checked.problems == {}
    assert len(checked.fit) >= 2


def test_every_operator_has_a_quick_case_and_keys_are_unique():
    assert {o.title for o, _ in QUICK} == {o.title for o in OPERATORS}
    keys = [f"{o.name}-{c.key}" for o in OPERATORS for c in o.cases]
    assert len(set(keys)) == len(keys)
    assert len({g.key for g in GROWTHS}) == len(GROWTHS)
    assert all(len(g.sizes) >= 4 and list(g.sizes) == sorted(set(g.sizes)) for g in GROWTHS)


def growing(key):
    return next(g for g in GROWTHS if g.key == key)


def test_what_grows_is_what_it_says(tmp_path):
    setting = Setting(scratch=tmp_path)
    for faces in (320, 1280):
        _, gradient = growing("rasterizer-faces").build(setting, faces)()
        assert gradient.shape == (4 * faces, 3, 3)
    for pixels in (1024, 4096):
        value, _ = growing("rasterizer-pixels").build(setting, pixels)()
        assert value.shape == (4, pixels**0.5, pixels**0.5)
    for key in ("repulsion-pairs", "repulsion-grid"):
        assert growing(key).build(setting, 1000)()[1].shape == (1, 1000, 2)
    assert growing("nearest-points").build(setting, 1024)()[0].shape == (1, 1024)
    assert growing("lfd-gallery").build(setting, 7)().shape == (7,)
    one, two = (growing("drkfs-views").build(setting, n)() for n in (1, 2))
    assert bool(one.abs().sum() > 0)
    assert not torch.equal(one, two)


def test_evaluation_judges_every_sample(tmp_path):
    rows = growing("evaluate-samples").build(Setting(scratch=tmp_path), 2)()
    assert [row.id for row in rows] == ["0", "1"]
    assert all(not row.failed and row.values["cd"] > 0 for row in rows)


def test_a_build_leaves_nothing(tmp_path, monkeypatch):
    built = []
    import reconlab.datasets.builder as builder

    def record(*args, **kwargs):
        built.append(real(*args, **kwargs))

    real = builder.build_synth
    monkeypatch.setattr(builder, "build_synth", record)
    run = build_dataset(Setting(scratch=tmp_path), 2, 1)
    run(), run()
    assert [len(report.built) for report in built] == [2, 2], "the second starts from nothing, too"
    assert list(tmp_path.iterdir()) == []


def test_choice_by_name():
    chosen = choose(["nearest"], quick=False, on_gpu=False)
    assert {o.name for o, _ in chosen.cases} == {"nearest"}
    assert [g.key for g in chosen.growths] == ["nearest-points"]
    assert not chosen.workers
    assert not choose(["ratios"], False, False).growths
    assert not choose(["growth"], False, False).cases
    everything, quick = choose(None, False, False), choose(None, True, False)
    assert len(everything) == sum(len(o.cases) for o in OPERATORS) + len(GROWTHS) + 1
    assert len(quick.cases) == len(QUICK)
    assert all(o.on_gpu for o, _ in choose(None, False, True).cases)
    for name in names():
        assert len(choose([name], quick=False, on_gpu=False)) > 0


@pytest.mark.parametrize(
    ("only", "quick", "on_gpu", "named"),
    [
        (["neerest"], False, False, "did you mean 'nearest'"),
        (["xyzzy"], False, False, "choose from rasterizer"),
        (["build"], True, False, "Nothing of build is measured with --quick"),
        (["emd"], False, True, "Nothing of emd is measured with --device cuda"),
    ],
)
def test_bad_choice(only, quick, on_gpu, named):
    with pytest.raises(ReconlabError, match=named):
        choose(only, quick, on_gpu)


def test_peers_are_checked(monkeypatch):
    with pytest.raises(ReconlabError, match="did you mean 'pytorch3d'"):
        choose_peers(["pytorch3"])
    with pytest.raises(ReconlabError, match="choose from pytorch3d, open3d, pot, embreex"):
        choose_peers(["kaolin"])
    monkeypatch.setattr("reconlab.bench.peers.installed", lambda name: name == "pot")
    assert choose_peers(["pot"]) == {"pot"}
    with pytest.raises(ReconlabError, match="'open3d' is not installed"):
        choose_peers(["pot", "open3d"])


def test_cases_load_no_peer():
    code = "import sys, reconlab.bench.catalogue\n"
    code += "print([m for m in ('pytorch3d', 'open3d', 'ot', 'embreex') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
