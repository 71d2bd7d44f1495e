"""``reconlab table`` and ``reconlab list tables``: what they print, write and refuse."""

import json

import pytest
import yaml

from reconlab.cli.__main__ import main

TABLE = {
    "title": "A table",
    "columns": [{"name": "CD", "metric": "dpc_cd", "factor": 100}],
    "rows": [
        {"name": "full", "config": "configs/full.yaml", "paper": {"CD": 4.0}},
        {"name": "half", "config": "configs/half.yaml", "paper": {"CD": 5.0}},
    ],
    "claims": [{"text": "full is better", "holds": "full.CD < half.CD"}],
}


def record(row: str, seed: int, value: float, **more) -> dict:
    protocols = {"dpc_cd": {"name": "dpc_cd", "points": "all"}}
    content = {"cell": f"{row}-seed{seed}", "row": f"configs/{row}.yaml", "seed": seed, "state": "done"}
    return {**content, "profile": "desk", "values": {"dpc_cd": value}, "protocols": protocols, **more}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A table, and a sweep's folder with two seeds of ``full`` and a failed cell of ``half``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs" / "tables").mkdir(parents=True)
    (tmp_path / "configs" / "tables" / "small.yaml").write_text(yaml.safe_dump(TABLE))
    for name in ("full", "half"):
        (tmp_path / "configs" / f"{name}.yaml").touch()
    records = [record("full", 0, 0.03), record("full", 1, 0.05)]
    records.append(record("half", 0, 0.0, state="failed", values=None, reason="no memory"))
    for content in records:
        cell = tmp_path / "sweep" / "cells" / content["cell"]
        cell.mkdir(parents=True)
        (cell / "cell.json").write_text(json.dumps(content))
    listing = {"name": "small", "profile": "desk", "cells": [r["cell"] for r in records] + ["half-seed1"]}
    (tmp_path / "sweep" / "sweep.json").write_text(json.dumps(listing))
    return tmp_path


def test_the_table_of_a_sweep(root, capsys):
    assert main(["table", "small", "--from", "sweep"]) == 0
    out = capsys.readouterr().out
    assert "4.00 ± 1.41 (2)" in out
    assert "paper 4.00, ±0.00" in out
    assert "not run" in out
    assert "Cells: 2 done, 1 failed, 0 running, 1 missing." in out
    assert "1 of 4 cells have not run or were moved: half-seed1." in out
    assert "failed: half-seed0 (half): no memory" in out


def test_what_is_collected_gives_the_same_table(root, capsys):
    form = ["--format", "json"]
    assert main(["table", "small", "--from", "sweep", *form, "--collect=results/tables/small.json", "--note=n"]) == 0
    captured = capsys.readouterr()
    first = json.loads(captured.out)
    assert captured.err == "cells: results/tables/small.json (3)\n"
    stored = json.loads((root / "results" / "tables" / "small.json").read_text())
    assert (stored["table"], stored["profile"], stored["note"]) == ("small", "desk", "n")
    assert [(c["cell"], c["state"]) for c in stored["cells"]] == [
        ("full-seed0", "done"),
        ("full-seed1", "done"),
        ("half-seed0", "failed"),
    ]
    assert main(["table", "small", *form]) == 0  # reads results/tables/small.json
    again = json.loads(capsys.readouterr().out)
    assert again["rows"] == first["rows"]
    assert again["claims"] == first["claims"]
    assert "n" in again["remarks"]


def test_several_sources_are_read_together(root, capsys):
    (root / "half.json").write_text(json.dumps({"cells": [record("half", 0, 0.09)]}))
    assert main(["table", "small", "--from", "sweep", "--from", "half.json", "--format=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["claims"][0]["verdict"] == "holds"
    assert found["claims"][0]["numbers"] == "full.CD 4.00 < half.CD 9.00"


def test_out_is_written_whole(root, capsys):
    assert main(["table", "small", "--from=sweep", "--format=md", "--out=pages/small.md"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "table: pages/small.md\n")
    assert (root / "pages" / "small.md").read_text().startswith("## A table\n")
    assert [p.name for p in (root / "pages").iterdir()] == ["small.md"]  # no half-written file beside it


def test_of_the_paper_alone(root, capsys):
    assert main(["table", "small", "--paper-only", "--format=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["claims"][0]["verdict"] == "holds"
    assert found["rows"][0]["numbers"] == {"CD": {"paper": 4.0}}


def test_list_tables_names_them_and_what_is_wrong_with_one(root, capsys):
    (root / "configs" / "tables" / "bad.yaml").write_text("titel: x\n")
    assert main(["list", "tables"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split(None, 1) == ["small", "A table"] for line in lines)
    assert any(line.startswith("bad") and "did you mean 'title'?" in line for line in lines)
    assert any(line.startswith("drkfs_table3") for line in lines)  # those beside the package, too


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ([], "the following arguments are required: NAME"),
        (["smal"], "There is no table 'smal'; did you mean 'small'?"),
        (["small", "--from", "nowhere"], "--from nowhere does not exist"),
        (["small", "--from", "half=nowhere"], "run.json is missing"),
        (["small", "--format", "csv"], "invalid choice: 'csv'"),
        (["small", "--from=sweep", "--profile=paper"], "No finished cell is of the profile paper; there are desk."),
        (["small", "--paper-only", "--from=sweep"], "--paper-only reads no measurements"),
        (["small", "--note=x"], "--note is stored by --collect FILE"),
        (["small", "--out=sweep"], "--out sweep is a folder; name a file."),
        (["small", "--from=sweep", "--collect=configs"], "--collect configs is a folder"),
        (["small", "--from=sweep", "--out=configs/full.yaml/x.md"], "Cannot write configs/full.yaml/x.md"),
    ],
)
def test_each_mistake_is_one_sentence(options, part, root, capsys, one_sentence):
    assert main(["table", *options]) == 2
    assert part in one_sentence(capsys)


def test_a_missing_config_is_named(root, capsys, one_sentence):
    (root / "configs" / "half.yaml").unlink()
    assert main(["table", "small"]) == 2
    sentence = one_sentence(capsys)
    assert "small.yaml: rows.half.config is configs/half.yaml, which is not there" in sentence


def test_help_needs_no_torch(root):
    import subprocess
    import sys

    code = (
        "import sys\nfrom reconlab.cli.__main__ import main\n"
        "try:\n    main(['table', '--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert 'torch' not in sys.modules and 'yaml' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--collect" in done.stdout
