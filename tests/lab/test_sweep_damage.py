"""Sweeps that find damage: records, run directories, checkpoints, disks, locks; what is refused."""

import errno

import pytest

from reconlab.datasets import format as files
from reconlab.lab.sweep_record import is_whole, look


def test_a_damaged_record_is_named_and_looked_behind(trial, capsys):
    trial.run()
    (trial.folder / "cells" / "xa" / "cell.json").write_text('{"state": "do')
    assert trial.run() == 0
    assert "cell.json is damaged" in capsys.readouterr().out
    assert trial.record("a")["values"]["cd"] == 1.5
    assert len(trial.starts()) == 2


def test_a_run_directory_that_is_gone_is_named_and_its_values_stay(trial, capsys):
    trial.run()
    (trial.folder / "cells" / "xa" / "000").rename(trial.folder.parent / "elsewhere")
    assert trial.run() == 0
    assert "xa/000 is gone or incomplete; its values are still in cell.json" in capsys.readouterr().out
    assert trial.record("a")["values"]["cd"] == 1.5
    assert len(trial.starts()) == 2


def test_a_half_deleted_run_directory_is_not_used(trial):
    trial.plan(a=["die", "ok"])
    trial.run()
    cell = trial.folder / "cells" / "xa"
    (cell / "000" / "run.json").unlink()
    notes = look(cell).notes
    assert [n for n in notes if "000 has no run.json" in n]
    assert trial.run("--retry-failed") == 0
    assert trial.starts()[-1] == "fit xa -", "begun anew, in a directory of its own"
    assert (cell / "000" / "checkpoints").is_dir(), "nothing is taken away"
    assert trial.record("a")["run"] == "001"


def test_a_half_written_checkpoint_is_passed_over(trial, tmp_path):
    trial.plan(a=["die", "die"])
    trial.run()
    trial.run("--retry-failed")
    newest = trial.folder / "cells" / "xa" / "001" / "checkpoints" / "last.ckpt"
    newest.write_bytes(newest.read_bytes()[:-10])
    assert not is_whole(newest)
    found = look(trial.folder / "cells" / "xa")
    assert found.checkpoint == trial.folder / "cells" / "xa" / "000" / "checkpoints" / "last.ckpt"
    assert "001/checkpoints/last.ckpt is damaged" in " ".join(found.notes)


def test_a_damaged_sweep_json_and_a_cell_of_other_parameters_are_refused(trial, capsys):
    trial.run()
    path = trial.folder / "cells" / "xa" / "cell.json"
    path.write_text(path.read_text().replace('"x": "a"', '"x": "z"'))
    assert trial.run() == 2
    assert "cells/xa is of other parameters ({'x': 'z'})" in capsys.readouterr().err
    (trial.folder / "sweep.json").write_text("{")
    assert trial.run() == 2
    assert "sweep.json is damaged: move it away" in capsys.readouterr().err


def test_a_full_disk_ends_the_sweep_in_a_sentence(trial, capsys, monkeypatch):
    write = files.write_durable

    def full(path, data):
        if "cell.json" in path.name and b'"done"' in data:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    monkeypatch.setattr(files, "write_durable", full)
    assert trial.run() == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "is full: make room and run the sweep again; it goes on." in error
    assert trial.starts() == ["fit xa -"], "no further cell is begun"
    assert trial.record("a")["state"] == "running", "the old record, whole"
    monkeypatch.undo()
    monkeypatch.setenv("STUB_TRACE", str(trial.trace))
    assert trial.run() == 0
    assert trial.starts() == ["fit xa -", "fit xb -"]


def test_a_training_that_fills_the_disk_is_not_a_failure(trial, capsys):
    trial.plan(a=["full", "ok"])
    assert trial.run() == 2
    assert "is full" in capsys.readouterr().err
    assert trial.record("a")["state"] == "running"
    assert trial.run() == 0


def test_a_file_system_without_locks_is_named_and_nobody_waits(trial, capsys, monkeypatch):
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert trial.run() == 2
    assert ".lock cannot be locked (No locks available): choose an --out" in capsys.readouterr().err


def test_an_unexpected_error_of_one_cell_does_not_end_the_others(trial, capsys, monkeypatch):
    from reconlab.lab import sweep_cell

    measured = sweep_cell.measured

    def broken(progress):
        if progress.run.parent.name == "xa":
            raise KeyError("surprise")
        return measured(progress)

    monkeypatch.setattr(sweep_cell, "measured", broken)
    assert trial.run() == 1
    assert "failed: xa: unexpected KeyError: 'surprise'" in capsys.readouterr().err
    assert trial.record("b")["state"] == "done"


@pytest.mark.parametrize("content", ["[]", '{"metrics": [1], "status": "finished"}', "null"])
def test_a_report_that_is_none_is_named(trial, content):
    trial.run()
    (trial.folder / "cells" / "xa" / "000" / "run.json").write_text(content)
    found = look(trial.folder / "cells" / "xa")
    assert (found.todo, len(found.notes)) == ("train", 1)
    assert "000/run.json is damaged" in found.notes[0]


def test_cells_of_another_profile_are_not_taken_for_done(trial, capsys):
    """Whoever moves sweep.json away must not get the smoke profile's numbers under the name of the paper's."""
    trial.run()
    path = trial.folder / "cells" / "xa" / "cell.json"
    path.write_text(path.read_text().replace('"profile": null', '"profile": "smoke"'))
    (trial.folder / "sweep.json").unlink()
    assert trial.run() == 2
    assert "cells/xa was run at the profile smoke, not none" in capsys.readouterr().err


def test_a_cell_that_is_called_otherwise_now_is_not_run_again(trial, capsys):
    trial.run()
    (trial.folder / "cells" / "xa").rename(trial.folder / "cells" / "older")
    assert trial.run() == 2
    assert "The cell xa is in" in (said := capsys.readouterr().err)
    assert "cells/older already" in said
    (trial.folder / "cells" / "older").rename(trial.folder / "cells" / "xa")
    assert trial.run() == 0
    assert len(trial.starts()) == 2, "nothing was run a second time"


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--engine=slurm"], "There is no engine 'slurm'"), (["--address=a:1"], "--address goes with --engine ray")],
)
def test_a_dry_run_refuses_what_the_run_would_refuse(words, said, trial, capsys):
    assert trial.run("--dry-run", *words) == 2
    assert said in capsys.readouterr().err
    assert not trial.out.exists()
