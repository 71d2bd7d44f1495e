"""``reconlab report``: real run directories, and what can be wrong with them."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from reconlab.cli.__main__ import main
from reconlab.report.html_runs import read_run


def data_of(page: Path) -> dict:
    """The JSON in a report."""
    return json.loads(page.read_text().split('<script type="application/json" id="data">')[1].split("</script>")[0])


@pytest.fixture(scope="module")
def tested(trained, tmp_path_factory) -> Path:
    """The run directory of ``reconlab test`` on the trained run's checkpoint."""
    out = tmp_path_factory.mktemp("tested")
    assert main(["test", f"--ckpt_path={trained / 'checkpoints' / 'last.ckpt'}", f"--out={out}"]) == 0
    return next(out.glob("*/000"))


@pytest.fixture
def run(tested, tmp_path) -> Path:
    """A copy of it, for tests that damage it."""
    shutil.copytree(tested, tmp_path / "run")
    return tmp_path / "run"


def fails(arguments, capsys, one_sentence) -> str:
    capsys.readouterr()
    assert main(["report", *map(str, arguments)]) == 2
    return one_sentence(capsys)


def test_a_real_test_makes_a_report_with_its_samples(run, capsys):
    assert main(["report", str(run)]) == 0
    page = run / "report.html"
    said = capsys.readouterr().out
    assert str(page) in said
    assert f"({page.stat().st_size / 1e6:.1f} MB" in said
    content, own = data_of(page), read_run(run)
    assert {(s["category"], s["id"]) for s in content["samples"]} == {(s.category, s.id) for s in own.samples}
    assert all(s["truth"] and s["image"] and s["runs"][0]["shape"] for s in content["samples"])
    assert "Training: loss and its parts" in [c["title"] for c in content["charts"]]  # of the run that trained it
    assert "mean_P d(p, T) + mean_T d(t, P)" in page.read_text()  # the protocol


def test_what_evaluate_wrote_is_reported_with_its_truths(run, data, tmp_path):
    out = tmp_path / "evaluated"
    arguments = ["evaluate", run / "predictions", data, "--metrics", "cd,iou", "--out", out]
    assert main([*map(str, arguments)]) in (0, 1)
    assert main(["report", str(out)]) == 0
    content = data_of(out / "report.html")
    assert [m["name"] for m in content["metrics"]] == ["chamfer_dpc", "voxel_iou"]
    judged = [s for s in content["samples"] if s["runs"][0]["shape"]]
    assert judged
    assert all(s["truth"]["kind"] == "mesh" for s in judged)


def test_an_evaluation_of_files_shows_truths_in_the_frame_of_comparison(tmp_path):
    import trimesh

    from reconlab.report.html_geometry import decode

    for folder, size in (("pred", 3.8), ("gt", 4.0)):
        (tmp_path / folder / "chair").mkdir(parents=True)
        trimesh.creation.box(extents=[size] * 3).export(tmp_path / folder / "chair" / "a.obj")
    out = tmp_path / "out"
    arguments = ["evaluate", tmp_path / "pred", tmp_path / "gt", "--metrics", "cd", "--out", out]
    assert main([*map(str, arguments)]) == 0
    assert main(["report", str(out)]) == 0
    sample = data_of(out / "report.html")["samples"][0]
    truth, prediction = decode(sample["truth"])[0], decode(sample["runs"][0]["shape"])[0]
    half = 0.5 / 3**0.5  # a cube whose diagonal is 1
    assert abs(truth).max() == pytest.approx(half, abs=1e-4)
    assert abs(prediction).max() == pytest.approx(half * 0.95, abs=1e-4)


def test_a_training_without_predictions_says_how_to_get_them(trained, tmp_path):
    out = tmp_path / "training.html"
    assert main(["report", str(trained), "--out", str(out)]) == 0
    text = out.read_text()
    assert "reconlab test --ckpt_path" in text
    assert data_of(out)["samples"] == []
    assert "data:image/png;base64," in text  # the last validation picture


def test_samples_faces_and_title(run, tmp_path):
    out = tmp_path / "small.html"
    options = ["--samples", "2", "--faces", "50", "--title", "Mine & yours", "--out", str(out)]
    assert main(["report", str(run), *options]) == 0
    content = data_of(out)
    shapes = [s for s in content["samples"] if s["has3d"]]
    assert (len(shapes), len(content["samples"])) == (2, len(read_run(run).samples))
    assert all(s["truth"]["shown"] <= 50 < s["truth"]["count"] for s in shapes)
    text = out.read_text()
    assert "<h1>Mine &amp; yours</h1>" in text
    assert "simplified for display to 50 faces" in text


def test_moved_data_are_named_or_found_by_root(run, data, tmp_path):
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(data), "elsewhere/gone"))
    assert main(["report", str(run)]) == 0
    assert "the data elsewhere/gone are not here: say --root DATA" in (run / "report.html").read_text()
    assert all(s["truth"] is None and s["runs"][0]["shape"] for s in data_of(run / "report.html")["samples"])
    assert main(["report", str(run), "--force", "--root", str(data)]) == 0
    assert all(s["truth"] for s in data_of(run / "report.html")["samples"])


def test_a_report_is_not_overwritten_silently(run, capsys, one_sentence):
    (run / "report.html").write_text("mine")
    said = fails([run], capsys, one_sentence)
    assert "--force" in said
    assert (run / "report.html").read_text() == "mine"


def test_a_damaged_run_json_is_named(run, capsys, one_sentence):
    (run / "run.json").write_text('{"status": ')
    assert str(run / "run.json") in fails([run], capsys, one_sentence)
    assert not (run / "report.html").exists()


def test_a_half_deleted_run_shows_what_is_left(run, capsys):
    for name in ("run.json", "config.yaml", "metrics.csv"):
        (run / name).unlink()
    assert main(["report", str(run)]) == 0
    text = (run / "report.html").read_text()
    assert "run.json is missing" in text
    assert "config.yaml is missing" in text
    assert data_of(run / "report.html")["samples"][0]["runs"][0]["shape"]


def test_mistakes_are_one_sentence(run, tmp_path, capsys, one_sentence):
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow" / "predictions").mkdir(parents=True)
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text('{"name": "s", "cells": []}')
    cases = {
        "does not exist": [tmp_path / "gone"],
        "is no run directory": [tmp_path / "empty"],
        "nothing to show": [tmp_path / "hollow"],
        "has no cells yet": [tmp_path / "sweep"],
        "is a file": [run / "run.json"],
        "need --out": [run, tmp_path / "empty"],
        "is a folder": [run, "--out", tmp_path],
        "does not exist ": [run, "--out", tmp_path / "no" / "where" / "a.html"],
        "--samples is -1": [run, "--samples", "-1"],
        "--faces is -1": [run, "--faces", "-1"],
        "is no built dataset": [run, "--root", tmp_path / "empty"],
        "--cells goes with a sweep": [run, "--cells", "a"],
        "the following arguments are required": [],
    }
    for part, arguments in cases.items():
        assert part.strip() in fails(arguments, capsys, one_sentence), arguments
    assert not list(run.glob("*.html"))


def test_unknown_cells_are_named_with_those_there_are(run, tmp_path, capsys, one_sentence):
    sweep = tmp_path / "sweep"
    shutil.copytree(run, sweep / "cells" / "good" / "000")
    for name, record in {
        "good": {"state": "done", "run": "000", "seed": 0},
        "outside": {"state": "done", "run": "../../../run", "seed": 0},
        "moved": {"state": "done", "run": "001", "seed": 0},
        "bad": {"state": "failed", "reason": "no memory", "run": None},
    }.items():
        (sweep / "cells" / name).mkdir(exist_ok=True)
        (sweep / "cells" / name / "cell.json").write_text(json.dumps({"cell": name, **record}))
    (sweep / "sweep.json").write_text(json.dumps({"name": "s", "cells": ["good", "bad"]}))
    assert "has no cell 'x'; it has good, bad, moved, outside" in fails([sweep, "--cells", "x"], capsys, one_sentence)
    assert "the cell 'bad' has nothing to show" in fails([sweep, "--cells", "bad"], capsys, one_sentence)
    assert "lies outside" in fails([sweep, "--cells", "outside"], capsys, one_sentence)
    assert main(["report", str(sweep)]) == 0
    text = (sweep / "report.html").read_text()
    assert "no memory" in text
    assert "moved</strong>: The run directory" in text
    assert [r["name"] for r in data_of(sweep / "report.html")["runs"]] == ["good"]
    (sweep / "cells" / "good" / "cell.json").write_text("{")
    assert main(["report", str(sweep), "--force"]) == 0  # the others are still shown
    assert "cell.json is damaged" in (sweep / "report.html").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_sentence_and_the_old_report_stays(run, capsys, one_sentence, monkeypatch):
    (run / "report.html").write_text("old")

    def fdopen(handle, *arguments, **options):
        os.close(handle)
        return open("/dev/full", *arguments, **options)

    monkeypatch.setattr("reconlab.report.html.os.fdopen", fdopen)
    said = fails([run, "--force"], capsys, one_sentence)
    assert "No space left on device" in said
    assert (run / "report.html").read_text() == "old"
    assert [p.name for p in run.glob(".report*")] == []


def test_a_name_that_is_no_text_is_reported(run, tmp_path):
    named = os.path.join(os.fsencode(tmp_path), b"caf\xe9 run")  # Latin-1, as old archives have it
    shutil.copytree(os.fsencode(run), named)
    out = tmp_path / "named.html"
    assert main(["report", os.fsdecode(named), "--out", str(out)]) == 0
    assert "caf? run" in out.read_text(encoding="utf-8")


def test_a_folder_without_permission_is_found_out_before_the_work(run, capsys, one_sentence, monkeypatch):
    monkeypatch.setattr("reconlab.cli.report.os.access", lambda *_: False)  # root may write everywhere
    monkeypatch.setattr("reconlab.report.html_runs.read_run", lambda *_: pytest.fail("it began"))
    assert "no permission" in fails([run], capsys, one_sentence)


def test_help_loads_no_torch(repository):
    import subprocess

    code = "import sys; from reconlab.cli.__main__ import main\ntry: main(['report', '--help'])\n"
    code += "except SystemExit: pass\n"
    code += "print('torch' in sys.modules, 'jinja2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"
