"""A run: records as they are finished, what a second call measures, what Ctrl-C leaves."""

import json
from pathlib import Path

import pytest
import torch

from reconlab.bench import run as running
from reconlab.bench.case import Case, Contestant, Growing, Operator, Setting
from reconlab.bench.catalogue import Choice
from reconlab.bench.run import problems, run
from reconlab.errors import ReconlabError


class Catalogue:
    """Two cases and a growth, which write down what is built; ``interrupt`` names one that Ctrl-C ends."""

    def __init__(self):
        self.built, self.interrupt, self.broken = [], None, None
        cases = tuple(Case(key, f"size {key}", self.builder(key)) for key in ("1", "2"))
        self.operator = Operator("sum", "Sums", "Adds.", cases)
        self.growing = Growing("sum", "sum", "Sums", "numbers", (1, 2, 3, 4), 1.0, "each once", self.grow)
        self.choice = Choice(tuple((self.operator, c) for c in cases), (self.growing,), False)

    def builder(self, key):
        def build(setting):
            self.built.append(key)
            if self.interrupt == key:
                raise KeyboardInterrupt
            theirs = torch.tensor([3.0 if self.broken == key else 1.0])
            return {"ours": Contestant(lambda: torch.ones(1)), "theirs": Contestant(lambda: theirs)}

        return build

    def grow(self, setting, size):
        assert setting.scratch.is_dir()
        self.built.append(size)
        return lambda: sum(range(1000 * size))


@pytest.fixture
def catalogue(monkeypatch):
    found = Catalogue()
    monkeypatch.setattr(running, "OPERATORS", (found.operator,))
    monkeypatch.setattr(running, "GROWTHS", (found.growing,))
    return found


def measure(catalogue, out, **more):
    arguments = {"choice": catalogue.choice, "setting": Setting(), "rounds": 2, "thread_count": 1, **more}
    return run(Path(out), **arguments)


def test_what_is_written(catalogue, tmp_path):
    said = []
    content = measure(catalogue, tmp_path, command="reconlab bench", say=said.append)
    assert json.loads((tmp_path / "bench.json").read_text()) == content
    assert content["schema"] == "reconlab.bench/1"
    assert [c["case"] for c in content["cases"]] == ["size 1", "size 2"]
    ours, theirs = content["cases"][0]["contestants"]
    assert (ours["name"], ours["ratio"], ours["difference"]) == ("ours", [1.0, 1.0, 1.0], None)
    assert (theirs["difference"], theirs["tolerance"]) == (0.0, 1e-3)
    assert theirs["seconds"][0] > 0
    assert content["growth"][0]["sizes"] == [1, 2, 3, 4]
    assert content["growth"][0]["fit"]["exponent"] > 0
    assert content["workers"] is None
    assert content["clock"] == "CPU time of the process"
    assert content["machine"]["threads"] == 1
    parts = [*content["cases"], *content["growth"]]
    assert content["wall_seconds"] == pytest.approx(sum(p["wall_seconds"] for p in parts), abs=0.1)
    assert content["machine"]["processor"]
    assert [s.split(":")[0] for s in said] == ["[1/3] Sums, size 1", "[2/3] Sums, size 2", "[3/3] Sums"]
    assert problems(content) == []


def test_a_second_call_measures_what_is_missing(catalogue, tmp_path):
    first = measure(catalogue, tmp_path)
    (tmp_path / "cases" / "sum-2.json").unlink()
    catalogue.built.clear()
    said = []
    second = measure(catalogue, tmp_path, say=said.append)
    assert catalogue.built == ["2"]
    assert said[0] == "2 of 3 measurements are there already."
    assert second["cases"][0] == first["cases"][0]
    assert second["growth"] == first["growth"]
    catalogue.built.clear()
    measure(catalogue, tmp_path, fresh=True)
    assert catalogue.built == ["1", "2", 1, 2, 3, 4]


def test_what_was_not_chosen_now_stays(catalogue, tmp_path):
    measure(catalogue, tmp_path)
    some = Choice(catalogue.choice.cases[:1], (), False)
    content = measure(catalogue, tmp_path, choice=some, fresh=True, command="again")
    assert [case["command"] for case in content["cases"]] == ["again", ""], "each says by which command"
    assert len(content["growth"]) == 1


@pytest.mark.parametrize("other", [{"rounds": 3}, {"setting": Setting(seed=1)}, {"setting": Setting(quick=True)}])
def test_records_of_other_settings_do_not_count(catalogue, tmp_path, other):
    measure(catalogue, tmp_path)
    catalogue.built.clear()
    some = Choice(catalogue.choice.cases[:1], (), False)
    content = measure(catalogue, tmp_path, choice=some, **other)
    assert catalogue.built == ["1"]
    assert [c["case"] for c in content["cases"]] == ["size 1"], "the rest is of the old settings and left out"


def test_records_of_another_commit_are_kept_and_counted(catalogue, tmp_path):
    measure(catalogue, tmp_path)
    path = tmp_path / "cases" / "sum-1.json"
    stored = json.loads(path.read_text())
    stored["record"]["commit"] = "0" * 40
    path.write_text(json.dumps(stored))
    said = []
    content = measure(catalogue, tmp_path, say=said.append)
    assert said == ["3 of 3 measurements are there already (1 of another commit; --fresh measures them anew)."]
    assert content["cases"][0]["commit"] == "0" * 40


def test_ctrl_c_loses_nothing(catalogue, tmp_path):
    catalogue.interrupt = "2"
    with pytest.raises(KeyboardInterrupt):
        measure(catalogue, tmp_path)
    content = json.loads((tmp_path / "bench.json").read_text())
    assert [c["case"] for c in content["cases"]] == ["size 1"]
    catalogue.interrupt = None
    catalogue.built.clear()
    assert len(measure(catalogue, tmp_path)["cases"]) == 2
    assert catalogue.built == ["2", 1, 2, 3, 4]


def test_a_wrong_answer_is_a_problem_not_the_end(catalogue, tmp_path):
    catalogue.broken = "1"
    content = measure(catalogue, tmp_path)
    assert [c["name"] for c in content["cases"][0]["contestants"]] == ["ours"]
    assert problems(content) == ["Sums, size 1: theirs: its answer is off by 2.0e+00, more than 0.001."]
    assert len(content["cases"][1]["contestants"]) == 2


def test_a_case_that_cannot_be_built_is_a_problem(catalogue, tmp_path, monkeypatch):
    def refuse(setting, size):
        raise OSError("no space")

    growing = Growing("sum", "sum", "Sums", "numbers", (1, 2, 3, 4), 1.0, "each once", refuse)
    case = Case("1", "size 1", lambda setting: refuse(setting, 1))
    operator = Operator("sum", "Sums", "Adds.", (case,))
    monkeypatch.setattr(running, "OPERATORS", (operator,))
    monkeypatch.setattr(running, "GROWTHS", (growing,))
    content = measure(catalogue, tmp_path, choice=Choice(((operator, case),), (growing,), False))
    assert problems(content) == ["Sums, size 1: all: OSError: no space.", "Sums: OSError: no space."]


@pytest.mark.parametrize("damage", ["{", '{"settings": 1}', "[]", '{"settings": {}, "record": {}}'])
def test_a_damaged_record_is_named(catalogue, tmp_path, damage):
    measure(catalogue, tmp_path)
    (tmp_path / "cases" / "sum-1.json").write_text(damage)
    with pytest.raises(ReconlabError, match=r"sum-1\.json is damaged: remove it"):
        measure(catalogue, tmp_path)


def test_threads_are_limited_within_alone(catalogue, tmp_path, monkeypatch):
    from reconlab.threads import num_threads

    monkeypatch.setenv("RECONLAB_THREADS", "3")
    seen = []
    ours = Contestant(lambda: seen.append((num_threads(), torch.get_num_threads())) or torch.ones(1))
    case = Case("1", "x", lambda setting: {"ours": ours})
    before = torch.get_num_threads()
    measure(catalogue, tmp_path, choice=Choice(((catalogue.operator, case),), (), False), thread_count=2)
    assert set(seen) == {(2, 2)}
    assert (num_threads(), torch.get_num_threads()) == (3, before)


def test_builds_over_processes(catalogue, tmp_path, monkeypatch):
    """Wall time, two sizes, one and two workers: the arithmetic, with builds that a fake clock times."""
    from reconlab.bench import measure as measuring
    from reconlab.bench.timing import HostClock

    now = [0.0]

    def fake_build(setting, shapes, workers):
        def build():
            now[0] += 4.0 * (workers - 1) + 0.5 * shapes / workers  # starting a worker costs 4 s

        return build

    monkeypatch.setattr(measuring, "build_dataset", fake_build)
    monkeypatch.setattr(measuring, "WALL", HostClock("wall time", lambda: now[0]))
    monkeypatch.setattr(measuring.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    record = measuring.measure_workers(Setting(), 2)
    one, two = record["rows"]
    assert (one["workers"], one["seconds"], one["more_seconds"]) == (1, 36.0, 24.0)
    assert (two["workers"], two["seconds"], two["more_seconds"]) == (2, 22.0, 12.0)
    assert two["speedup"] == pytest.approx(36 / 22)
    assert two["more_speedup"] == pytest.approx(2.0)
    assert running.sentence(record) == "1 workers 1.00×, 2 workers 1.64×"
