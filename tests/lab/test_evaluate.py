"""Pairs, metrics by name, judging, the store of finished samples, processes."""

import json
import math
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import trimesh

import reconlab.lab.evaluate as running
from reconlab.errors import ConversionError, ReconlabError
from reconlab.lab.evaluate import Store, evaluate
from reconlab.lab.evaluate_judge import Judge, charge_unfit
from reconlab.lab.evaluate_metrics import (
    CLASSES,
    PROTOCOLS,
    Plan,
    choose_metrics,
    columns,
    make_metric,
    parse_settings,
)
from reconlab.lab.evaluate_pairs import Pair, find_pairs, read_pairs
from reconlab.lab.evaluate_report import csv_text, document, means
from reconlab.metrics import ChamferDistance

FEW = {"cd": ("ChamferDistance", {"points": 50})}


class Picky(ChamferDistance):
    """A metric whose behaviour is told by the sample's id."""

    def __init__(self) -> None:
        super().__init__(points=20, name="picky")

    def per_sample(self, shape, batch):
        name = batch.ids[0]
        if name == "bug_truth" or (name == "bug" and shape.vertices.abs().amin() > 0.2):  # the truth is flatter
            raise ValueError("three rabbits")
        if name == "no_truth":
            raise ReconlabError("the true mesh is odd")
        if name == "unfit":
            raise ConversionError("no fur")
        return super().per_sample(shape, batch)


class Broken(ChamferDistance):
    """A metric that needs what is not here."""

    def __init__(self) -> None:
        super().__init__(name="broken")

    def per_sample(self, shape, batch):
        raise ReconlabError("needs the library 'x'")


HERE = f"{Picky.__module__}."


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    for name, box in (("pred", (1.0, 1.0, 1.0)), ("gt", (1.0, 1.0, 0.5))):
        (tmp_path / name).mkdir()
        trimesh.creation.box(box).export(tmp_path / name / "a.obj")
    return tmp_path / "pred" / "a.obj", tmp_path / "gt" / "a.obj"


def picky(files, name, metrics=None):
    plan = Plan(metrics or {"picky": (HERE + "Picky", {})})
    return Judge(plan)(Pair("c", name, *files))


def test_names_and_classes():
    for name in ("cd", "fscore", "nc", "iou"):
        assert columns(name, make_metric(name, CLASSES[name], {}, None)).popitem()[1].split("/")[0] == name
    chosen, notes = choose_metrics("cd,mine=FScore", "reconlab", parse_settings(["mine.threshold=0.05"]))
    assert chosen == {"cd": ("ChamferDistance", {}), "mine": ("FScore", {"threshold": 0.05})}
    assert notes == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_presets_state_what_they_compute(protocol):
    for name, arguments in PROTOCOLS[protocol].arguments.items():
        metric = make_metric(name, CLASSES[name], arguments, None)
        assert metric.points == arguments["points"], "the preset's arguments exist"
    for name in set(PROTOCOLS[protocol].metrics) & {"cd", "fscore"}:
        variant = make_metric(name, CLASSES[name], PROTOCOLS[protocol].arguments.get(name, {}), None).protocol
        assert variant.scale == {"atlasnet": "unit_ball", "drkfs": "unit_ball", "occnet": "unit_edge"}.get(
            protocol, "object"
        )


@pytest.mark.parametrize(
    ("metrics", "protocol", "settings", "said"),
    [
        ("lfdd", "reconlab", [], "did you mean 'lfd'"),
        ("cd,cd", "reconlab", [], "names 'cd' twice"),
        (",", "reconlab", [], "is empty"),
        ("x=Nothing", "reconlab", [], "no metric class 'Nothing'"),
        ("x=no_such_module.Metric", "reconlab", [], "cannot be imported"),
        ("x y=FScore", "reconlab", [], "is no name"),
        ("cd", "atlasnte", [], "did you mean 'atlasnet'"),
        ("cd", "reconlab", ["cd"], "expected metric.argument=value"),
        ("cd", "reconlab", ["cd.pionts=3"], "no such argument; it has variant, points"),
        ("cd", "reconlab", ["cd.points=0"], "points is 0"),
        ("cd", "reconlab", ["cd.points=many"], "cannot be made"),
        ("cd", "reconlab", ["cd.points=[1"], "not valid YAML"),
        ("cd", "reconlab", ["iou.resolution=8"], "not computed"),
    ],
)
def test_mistakes_in_metrics(metrics, protocol, settings, said):
    with pytest.raises(ReconlabError, match=said):
        choose_metrics(metrics, protocol, parse_settings(settings))


def test_all_leaves_out_what_cannot_be_made(monkeypatch):
    monkeypatch.setitem(CLASSES, "future", "NotYetWritten")
    monkeypatch.setitem(CLASSES, "emd", "ChamferDistance")
    monkeypatch.delitem(CLASSES, "mvcnn")  # loads its weights
    chosen, notes = choose_metrics("all", "reconlab", {})
    assert "future" not in chosen
    assert {"cd", "emd", "iou"} <= chosen.keys()
    assert any(note.startswith("future is left out: --metrics: there is no metric class") for note in notes)
    with pytest.raises(ReconlabError, match="NotYetWritten"):
        choose_metrics("cd,future", "reconlab", {})


def test_pairs_of_folders(tmp_path):
    for name in ("gt/chair/a.obj", "gt/chair/deep/b.ply", "gt/c.obj", "gt/.hidden/d.obj", "gt/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    for name in ("pred/chair/a.glb", "pred/chair/a.obj", "pred/c.v.obj", "pred/c.stl", "pred/lamp/x.obj"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    found = find_pairs(tmp_path / "pred", tmp_path / "gt")
    assert [(p.category, p.id) for p in found.pairs] == [("", "c"), ("chair", "a"), ("chair", "deep/b")]
    assert found.pairs[0].pred == tmp_path / "pred/c.stl"
    assert "a.glb and a.obj have one name" in found.pairs[1].pred_problem
    assert "there is no prediction chair/deep/b" in found.pairs[2].pred_problem
    assert found.notes == ["2 predictions have no ground truth and are left aside: c.v, lamp/x."]
    only = find_pairs(tmp_path / "pred", tmp_path / "gt", suffix="obj")
    assert only.pairs[1].pred == tmp_path / "pred/chair/a.obj"
    assert only.pairs[1].pred_problem == ""
    with pytest.raises(ReconlabError, match="--suffix is 'doc'"):
        find_pairs(tmp_path / "pred", tmp_path / "gt", suffix="doc")


def test_folders_that_do_not_belong_together(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(ReconlabError, match=r"ground truth .* has no file of"):
        find_pairs(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "y.obj").write_text("x")
    with pytest.raises(ReconlabError, match=r"predictions' folder .* has no file of"):
        find_pairs(tmp_path / "a", tmp_path / "b")
    (tmp_path / "a" / "x.obj").write_text("x")
    with pytest.raises(ReconlabError, match=r"No file under .* \(there 'x', here 'y'\)"):
        find_pairs(tmp_path / "a", tmp_path / "b")
    with pytest.raises(ReconlabError, match=r"is a folder and .* a file"):
        find_pairs(tmp_path / "a", tmp_path / "b" / "y.obj")
    with pytest.raises(ReconlabError, match=r"prediction .*nowhere does not exist"):
        find_pairs(tmp_path / "nowhere", tmp_path / "b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pred,truth\na,b\n", "no column 'gt'"),
        ("pred,gt\n", "names no pair"),
        ("pred,gt\na.obj,\n", "line 2: pred and gt must both"),
        ("pred,gt\na.obj,x/m.obj\nb.obj,y/m.obj\n", "line 3: 'm' is the name of line 2 too"),
        ("pred,gt,id\na.obj,b.obj,../../x\n", "is not a name"),
        ("pred,gt,category\na.obj,b.obj,/etc\n", "is not a name"),
    ],
)
def test_bad_tables(tmp_path, text, said):
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(ReconlabError, match=said):
        read_pairs(tmp_path / "pairs.csv")


def test_tables_are_read_from_their_own_folder(tmp_path, files):
    (tmp_path / "pairs.csv").write_text("gt,pred,category,id\ngt/a.obj,pred/a.obj,chair,1\ngt/a.obj,gone.obj,,2\n")
    one, two = read_pairs(tmp_path / "pairs.csv").pairs
    assert one == Pair("chair", "1", *files)
    assert two.pred is None
    assert "gone.obj does not exist" in two.pred_problem
    with pytest.raises(ReconlabError, match="cannot be read"):
        read_pairs(tmp_path / "none.csv")


def test_whose_fault_it_is(files):
    fine = picky(files, "fine")
    assert fine.failed == []
    assert fine.values["picky"] > 0
    ours = picky(files, "bug")  # breaks on the prediction (larger than the truth), not on the truth by itself
    assert ours.failed == ["picky"]
    assert ours.values["picky"] == pytest.approx(2 * math.sqrt(3)), "charged the worst value"
    assert ours.messages == ["c/bug: picky: unexpected ValueError: three rabbits."]
    theirs = picky(files, "bug_truth")
    assert (theirs.values, theirs.failed, theirs.excluded) == ({"picky": None}, ["picky"], False)
    assert "ground truth cannot be used" in theirs.messages[0]
    odd = picky(files, "no_truth")
    assert odd.values == {"picky": None}
    assert odd.messages == ["c/no_truth: picky: the ground truth cannot be used: the true mesh is odd."]
    unfit = picky(files, "unfit")
    assert (unfit.skipped, unfit.failed, unfit.messages) == ({"picky": "no fur."}, [], [])
    absent = picky(files, "x", {"broken": (HERE + "Broken", {})})
    assert absent.skipped == {"broken": "needs the library 'x'."}, "on a cube too: nobody's fault"


def test_a_bad_truth_has_no_values_and_enters_no_mean(tmp_path, files):
    (tmp_path / "bad.obj").write_text("")
    judge = Judge(Plan(FEW))
    rows = [judge(Pair("", "good", *files)), judge(Pair("", "bad", files[0], tmp_path / "bad.obj"))]
    assert rows[1].excluded
    assert rows[1].values == {"cd": None}
    content = document(rows, judge.metrics, {})
    assert content["mean"]["cd"] == rows[0].values["cd"]
    assert (content["n"], content["n_failed"], content["n_excluded"]) == (2, 1, 1)
    assert content["per_metric"] == {"cd": {"n": 1, "n_failed": 1}}
    assert means(rows[1:], ["cd"]) == {"cd": None}
    assert csv_text(rows, judge.metrics).splitlines()[2] == ",bad,,cd"
    assert csv_text(rows, judge.metrics, own=True).splitlines()[0] == "category,id,chamfer_dpc,chamfer_dpc/failed"


def test_the_store_goes_on_where_it_was(tmp_path, files, monkeypatch):
    pairs = [Pair("", str(i), *files) for i in range(3)]
    path = tmp_path / "x.jsonl"
    plan = Plan(FEW)
    whole = evaluate(pairs, plan, Store(None, {}))
    evaluate(pairs[:2], plan, Store(path, {"a": 1}))
    path.write_text(path.read_text()[:-30])  # the second line is torn
    judged = []
    original = Judge.__call__
    monkeypatch.setattr(Judge, "__call__", lambda self, pair: judged.append(pair.id) or original(self, pair))
    rows = evaluate(pairs, plan, Store(path, {"a": 1}))
    assert judged == ["1", "2"]
    assert rows == whole
    assert [json.loads(line).get("id") for line in path.read_text().splitlines()] == [None, "0", "1", "2"]
    trimesh.creation.icosphere(1).export(files[0])  # another prediction now
    assert evaluate(pairs, plan, Store(path, {"a": 1}))[0] != whole[0]
    assert judged[2:] == ["0", "1", "2"]


def test_the_store_refuses_another_protocol(tmp_path, files):
    path = tmp_path / "x.jsonl"
    evaluate([Pair("", "a", *files)], Plan(FEW), Store(path, {"a": 1, "points": 5}))
    with pytest.raises(ReconlabError, match=r"another protocol \('points' differs\).*--force"):
        Store(path, {"a": 1, "points": 6})
    assert Store(path, {"a": 1, "points": 6}, force=True).rows == {}
    path.write_text("something else\n")
    with pytest.raises(ReconlabError, match="no list of evaluated samples"):
        Store(path, {})
    with pytest.raises(ReconlabError, match="Cannot write"):
        Store(path / "below.jsonl", {})


def test_a_named_metric_that_does_not_apply_ends_the_run(files):
    plan = Plan({**FEW, "picky": (HERE + "Picky", {})})
    pairs = [Pair("", name, *files) for name in ("unfit", "fine")]
    with pytest.raises(ReconlabError, match="picky does not apply to unfit: no fur"):
        evaluate(pairs[:1], plan, Store(None, {}), named=["picky"])
    for order in (pairs, pairs[::-1]):
        rows = evaluate(order, plan, Store(None, {}), named=["picky"])
        assert charge_unfit(rows, {"picky": Picky()}) != []
        unfit = next(row for row in rows if row.id == "unfit")
        assert (unfit.failed, unfit.skipped) == (["picky"], {}), "one had a value: this one has failed"
        assert unfit.values["picky"] == Picky().protocol.worst_value
    rows = evaluate(pairs[::-1], plan, Store(None, {}), named=["picky"])
    assert rows[1].values["picky"] is None, "one had a value: the others are done"
    assert evaluate(pairs, plan, Store(None, {}))[0].values["cd"] is not None


class Executor:
    """Processes that work here, and die of the samples called ``deadly``."""

    started = 0

    def __init__(self, count, context, start, arguments):
        type(self).started += 1
        self.judge, self.dead = Judge(*arguments), False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def submit(self, work, pair):
        if self.dead:
            raise BrokenProcessPool
        future = Future()
        if pair.id == "deadly":
            self.dead = True
            future.set_exception(BrokenProcessPool())
        else:
            future.set_result(self.judge(pair))
        return future


def test_a_sample_that_kills_its_process_is_charged_and_the_rest_is_done(files, monkeypatch):
    monkeypatch.setattr(running, "ProcessPoolExecutor", Executor)
    pairs = [Pair("", name, *files) for name in ("a", "b", "deadly", "c", "d")]
    said = []
    rows = evaluate(pairs, Plan(FEW), Store(None, {}), workers=2, say=said.append)
    assert [row.id for row in rows] == ["a", "b", "deadly", "c", "d"]
    assert rows[2].values == {"cd": pytest.approx(2 * math.sqrt(3))}
    assert said == ["deadly: the prediction has failed: the process that judged it died (out of memory, perhaps)."]
    assert all(row.failed == [] for row in rows if row.id != "deadly")
