import json
import os

import pytest

from reconlab.errors import ReconlabError
from reconlab.lab.run_directory import commit, new_run_directory, provenance, write_atomic, write_run_json


def test_numbers_are_never_reused(tmp_path):
    first = new_run_directory(tmp_path, "a")
    second = new_run_directory(tmp_path, "a")
    assert (first.name, second.name) == ("000", "001")
    (tmp_path / "a" / "007").mkdir()
    assert new_run_directory(tmp_path, "a").name == "008"
    assert new_run_directory(tmp_path, "b").name == "000"


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ReconlabError, match="Cannot write the run directory under"):
        new_run_directory(tmp_path / "file", "a")
    with pytest.raises(ReconlabError, match="Cannot write"):
        write_atomic(tmp_path / "file" / "x.json", "{}")


def test_atomic_write_leaves_the_old_file_on_failure(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_atomic(path, "old")

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ReconlabError, match="no space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_run_json_merges(tmp_path):
    write_run_json(tmp_path, {"status": "started", **provenance(7)})
    write_run_json(tmp_path, {"status": "finished"})
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["status"] == "finished"
    assert content["seed"] == 7
    assert content["versions"]["torch"]
    assert content["machine"]["cores"] >= 1


def test_commit_is_of_this_checkout(repository):
    found = commit()
    if not (repository / ".git").exists():
        assert found is None
    else:
        assert found is not None
        assert len(found.removesuffix("+changes")) == 40
