"""Sweeps against a stub program: killed runners and trainings, orphans, two at once."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from reconlab.lab.sweep_record import CellLock, is_held


def test_cells_are_run_once_and_recorded(trial, capsys):
    assert trial.run() == 0
    assert trial.starts() == ["fit xa -", "fit xb -"]
    record = trial.record("a")
    assert record["state"] == "done"
    assert record["values"] == {"cd": 1.5, "cd/car": 1.5, "seconds_per_step": 0.25}
    assert (record["n"], record["n_failed"], record["steps"], record["run"]) == (7, 1, 2, "000")
    assert (record["protocols"], record["commit"], record["attempts"]) == ({"cd": {"factor": 100}}, "c0ffee", 1)
    assert record["wall_seconds"] == 2.0
    assert "2 done, 0 failed, 0 left" in capsys.readouterr().out
    before = record
    assert trial.run() == 0
    assert len(trial.starts()) == 2, "what is done is not done again"
    assert trial.record("a") == before


def test_failures_are_recorded_and_retried_on_request(trial, capsys):
    trial.plan(a=["fail", "fail", "ok"])
    assert trial.run() == 1
    assert (trial.record("a")["state"], trial.record("a")["reason"]) == ("failed", "the data are bad.")
    assert trial.record("b")["state"] == "done", "the others go on"
    assert trial.run() == 1
    assert len(trial.starts()) == 2, "not again by itself"
    assert "failed: xa: the data are bad." in capsys.readouterr().err
    assert trial.run("--retry-failed") == 1
    assert trial.run("--retry-failed") == 0
    assert trial.record("a")["attempts"] == 3
    log = (trial.folder / "cells" / "xa" / "log.txt").read_text()
    assert [f"attempt {i}:" in log for i in (1, 2, 3)] == [True] * 3


def test_a_killed_training_is_a_failure_that_resumes(trial):
    trial.plan(a=["die", "ok"])
    assert trial.run() == 1
    assert trial.record("a")["reason"].startswith("killed by SIGKILL (out of memory?)")
    assert trial.run("--retry-failed") == 0
    assert trial.starts()[-1] == f"fit xa {trial.folder.resolve()}/cells/xa/000/checkpoints/last.ckpt"
    assert trial.record("a")["resumed_from"] == "000/checkpoints/last.ckpt"
    assert trial.record("a")["run"] == "001"


def test_a_state_that_leads_nowhere_is_left_behind(trial):
    trial.plan(a=["die", "fail", "ok"])
    trial.run()
    trial.run("--retry-failed")  # from 000's state, which fails before it has saved one of its own
    assert trial.run("--retry-failed") == 0
    assert [line.split()[-1] == "-" for line in trial.starts() if " xa " in line] == [True, False, True]


def test_a_trained_cell_is_only_tested(trial):
    trial.plan(a=["die-trained", "ok"])
    assert trial.run() == 1
    assert trial.run("--retry-failed") == 0
    assert trial.starts()[-1] == f"test xa {trial.folder.resolve()}/cells/xa/000/checkpoints/last.ckpt"
    record = trial.record("a")
    assert (record["run"], record["trained_run"], record["steps"]) == ("001", "000", 2)
    assert record["values"]["seconds_per_step"] == 0.25


def test_a_training_without_a_test_is_tested_at_once(trial):
    trial.plan(a=["untested"])
    assert trial.run() == 0
    assert [line.split()[0] for line in trial.starts() if " xa " in line] == ["fit", "test"]
    assert trial.record("a")["attempts"] == 1


def test_an_orphan_is_waited_for_and_not_run_twice(trial):
    trial.plan(a=["hang"])
    first = trial.start()
    process = trial.wait_until_hangs("a")
    first.kill()
    first.communicate()
    os.kill(process, 0)  # alive
    assert is_held(trial.folder / "cells" / "xa")
    assert trial.record("a")["state"] == "running"
    second = trial.start()
    line = next(line for line in second.stdout if "xa: is run by an earlier process" in line)
    assert line
    assert trial.starts() == ["fit xa -"]
    trial.release("a")
    _, error = second.communicate(timeout=120)
    assert second.returncode == 0, error
    assert trial.starts() == ["fit xa -", "fit xb -"]
    assert (trial.record("a")["state"], trial.record("a")["run"]) == ("done", "000")


def test_runner_and_training_killed_together_resume(trial):
    trial.plan(a=["hang", "ok"])
    first = trial.start()
    process = trial.wait_until_hangs("a")
    first.kill()
    os.kill(process, signal.SIGKILL)
    first.communicate()
    while is_held(trial.folder / "cells" / "xa"):  # until the kernel has ended it
        pass
    assert trial.run() == 0
    assert trial.starts()[1] == f"fit xa {trial.folder.resolve()}/cells/xa/000/checkpoints/last.ckpt"
    assert trial.record("a")["attempts"] == 2


def test_the_runner_may_die_before_it_has_recorded_the_end(trial):
    # cell.json still says running, or was never written: the run directory has it all.
    assert trial.run() == 0
    for cell, content in (("a", {**trial.record("a"), "state": "running"}), ("b", None)):
        path = trial.folder / "cells" / f"x{cell}" / "cell.json"
        path.write_text(json.dumps(content)) if content else path.unlink()
    assert trial.run() == 0
    assert len(trial.starts()) == 2
    assert trial.record("b")["values"]["cd"] == 1.5


@pytest.mark.parametrize(("keep", "left"), [("last", ["001/last"]), ("none", []), ("all", ["000/last", "001/last"])])
def test_checkpoints_of_finished_cells(keep, left, trial):
    trial.plan(a=["die", "ok"], b=["die"])
    trial.run("--keep", keep)
    trial.run("--retry-failed", "--only", "cell=xa", "--keep", keep)
    cells = trial.folder / "cells"
    found = sorted(f"{p.parts[-3]}/{p.stem}" for p in (cells / "xa").rglob("*.ckpt"))
    assert found == left
    assert (cells / "xb" / "000" / "checkpoints" / "last.ckpt").is_file(), "what may go on keeps its state"


def test_two_runners_at_once_and_two_sweeps_in_one_folder(trial, capsys):
    trial.plan(a=["hang"])
    first = trial.start()
    trial.wait_until_hangs("a")
    assert trial.run() == 2
    assert "Another process runs the sweep in" in capsys.readouterr().err
    trial.release("a")
    first.communicate(timeout=120)
    assert first.returncode == 0
    assert trial.run("--", "--y=1") == 2
    error = capsys.readouterr().err
    assert "holds a sweep with the options none, not --y=1" in error
    trial.define(["a", "b", "c"])
    assert trial.run() == 0, "more cells of the same kind are welcome"
    assert trial.starts()[-1] == "fit xc -"
    assert json.loads((trial.folder / "sweep.json").read_text())["cells"] == ["xa", "xb", "xc"]


def test_ctrl_c_lets_trainings_save_and_resumes(trial):
    trial.plan(a=["hang", "ok"])
    first = trial.start()
    trial.wait_until_hangs("a")
    first.send_signal(signal.SIGINT)
    _, error = first.communicate(timeout=120)
    assert first.returncode == 130, error
    assert "Traceback" not in error
    assert (trial.record("a")["state"], trial.record("a")["reason"]) == ("running", "interrupted")
    assert not (trial.folder / "cells" / "xb").exists(), "no new cell is begun"
    assert trial.run() == 0
    assert trial.starts()[1].endswith("000/checkpoints/interrupted.ckpt")


def test_jobs_share_threads_and_devices(monkeypatch):
    from reconlab.lab import sweep_run

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("RECONLAB_THREADS", raising=False)
    monkeypatch.setattr(sweep_run.os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")
    dealt = sweep_run.deal(4)
    assert [d["CUDA_VISIBLE_DEVICES"] for d in dealt] == ["4", "5", "7", "4"]
    assert {(d["OMP_NUM_THREADS"], d["RECONLAB_THREADS"]) for d in dealt} == {("4", "4")}
    two = sweep_run.deal(2, [["reconlab", "--trainer.devices=2"]])
    assert [d["CUDA_VISIBLE_DEVICES"] for d in two] == ["4,5", "7,4"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES" not in sweep_run.deal(1)[0]


def test_the_lock_of_a_cell_is_its_childs(tmp_path):
    lock = CellLock(tmp_path / "cell")
    assert lock.take()
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(lock.handle.fileno(),))
    lock.close()
    assert is_held(tmp_path / "cell")
    child.communicate()
    assert not is_held(tmp_path / "cell")


def test_the_time_left_is_reckoned_by_steps(monkeypatch):
    from reconlab.lab import sweep_show

    now = [0.0]
    monkeypatch.setattr(sweep_show.time, "monotonic", lambda: now[0])
    show = sweep_show.Show(["a", "b", "c"], {"a": 100, "b": 300, "c": 100}, live=False)
    with show:
        assert show.eta() is None
        show.began(Path("a"))
        now[0] = 10.0
        show.ended(Path("a"), {"state": "done"})
        assert show.eta() == pytest.approx(40.0)  # 400 steps at 10 a second


def test_the_live_table_shows_reasons_as_they_are(tmp_path, capsys):
    """A reason such as ``[/a/path]`` is no markup of rich's: it ended the sweep with a traceback."""
    from reconlab.lab import sweep_show

    show = sweep_show.Show(["a"], {}, live=True)
    with show:
        show.began(tmp_path / "a")
        show.ended(tmp_path / "a", {"state": "failed", "reason": "no [/a/path] and no [bold]b"})
    assert "no [/a/path] and no [bold]b" in " ".join(capsys.readouterr().out.split())


def test_ctrl_c_while_a_cell_begins_stops_that_cell_too(trial):
    """The signal comes between the start of a training and its entry among the running ones."""
    from reconlab.lab.engines import LocalEngine
    from reconlab.lab.sweep import expand, load_sweep
    from reconlab.lab.sweep_run import run_sweep

    class Interrupted(LocalEngine):
        def submit(self, function, *arguments):
            work = super().submit(function, *arguments)
            os.kill(os.getpid(), signal.SIGINT)
            return work

    trial.plan(a=["hang", "ok"])
    sweep = load_sweep(trial.file)
    outcome = run_sweep(
        trial.folder, sweep, expand(sweep), Interrupted(), profile=None, jobs=1, local=True, retry=False, keep="last"
    )
    assert (outcome.stopped, outcome.done, outcome.left) == (True, [], ["xa", "xb"])
    assert trial.record("a")["reason"] == "interrupted"
    assert not is_held(trial.folder / "cells" / "xa"), "its training has ended"
