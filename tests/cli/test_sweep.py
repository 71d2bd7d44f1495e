"""``reconlab sweep`` with real trainings of seconds, and what a user may get wrong."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml

from reconlab.cli.__main__ import main


@pytest.fixture
def sweep(repository, data, tmp_path):
    """A sweep of one small AtlasNet, with a table whose smoke profile makes it take seconds."""

    def make(name: str = "tiny", **more: object) -> tuple[Path, list[str]]:
        (tmp_path / "configs" / "sweeps").mkdir(parents=True, exist_ok=True)
        (tmp_path / "configs" / "tables").mkdir(exist_ok=True)
        row = {"base": str(repository / "configs" / "atlasnet_chamfer.yaml"), "name": "row"}
        (tmp_path / "configs" / "row.yaml").write_text(yaml.safe_dump(row))
        table = {
            "title": "t",
            "paper": {"name": "P", "table": 1, "where": "w", "data": "d", "protocol": "p"},
            "sweep": f"configs/sweeps/{name}.yaml",
            "profiles": {"smoke": [f"--config={repository}/configs/profiles/smoke.yaml"]},
            "columns": [{"name": "CD", "metric": "chamfer_dpc", "factor": 100, "direction": "lower"}],
            "rows": [
                {"name": "row", "config": "configs/row.yaml", "options": {"smoke": ["--model.milestones=null"]}}
            ],
        }
        (tmp_path / "configs" / "tables" / f"{name}.yaml").write_text(yaml.safe_dump(table))
        content = {
            "name": name,
            "method": "grid",
            "command": ["${env}", "reconlab", "fit", "--test_after_fit=true", "${args}"],
            "parameters": {"config": {"values": ["configs/row.yaml"]}, "seed_everything": {"values": [1]}},
            **more,
        }
        file = tmp_path / "configs" / "sweeps" / f"{name}.yaml"
        file.write_text(yaml.safe_dump(content))
        extra = ["--", f"--data.root={data}", "--data.build=never", "--trainer.limit_val_batches=0"]
        return file, extra

    return make


def test_a_cell_is_an_ordinary_fit_with_a_test(sweep, tmp_path, capfd):
    file, extra = sweep()
    out = tmp_path / "sweeps"
    words = ["sweep", str(file), "--profile", "smoke", f"--out={out}"]
    assert main([*words, "--dry-run", *extra]) == 0
    shown = capfd.readouterr().out
    assert "reconlab fit --test_after_fit=true --config=configs/row.yaml --seed_everything=1" in shown
    assert "--model.milestones=null" in shown, "the row's own option at this profile"
    assert "1 cells, 4 training steps." in shown
    assert not out.exists()
    assert main([*words, *extra]) == 0
    cell = out / "tiny" / "cells" / "row-seed1"
    record = json.loads((cell / "cell.json").read_text())
    run = json.loads((cell / "000" / "run.json").read_text())
    assert (record["state"], record["row"], record["seed"], record["steps"]) == ("done", "configs/row.yaml", 1, 4)
    assert record["values"]["chamfer_dpc"] == run["metrics"]["test/chamfer_dpc"]
    assert (record["n"], record["n_failed"]) == (4, 0)
    assert record["protocols"]["chamfer_dpc"]["factor"] == 100
    assert record["values"]["seconds_per_step"] == pytest.approx(run["train_seconds"] / run["train_steps"])
    assert run["train_steps"] == 3, "the first step compiles and is not timed"
    assert record["command"].startswith("reconlab fit ")
    config = yaml.safe_load((cell / "000" / "config.yaml").read_text())
    assert "base" not in config
    assert (config["seed_everything"], config["data"]["seed"]) == (1, 1), "one axis of seeds is enough"
    assert list((cell / "000" / "predictions").glob("*/*.obj"))


def test_a_resumed_cell_has_the_values_of_one_that_was_not_stopped(sweep, tmp_path, monkeypatch):
    # Stopped by SIGKILL in the middle of an epoch, at a step whose state is on disk; then resumed by the sweep.
    file, extra = sweep()
    words = ["sweep", str(file), "--profile", "smoke"]
    extra += ["--trainer.max_steps=7", "--save_every=1"]
    assert main([*words, f"--out={tmp_path / 'whole'}", *extra]) == 0
    whole = json.loads((tmp_path / "whole/tiny/cells/row-seed1/cell.json").read_text())

    killer = tmp_path / "killer.py"
    killer.write_text(
        "import os, signal, sys\n"
        "from reconlab.lab import checkpoints\n"
        "save = checkpoints.SaveProgress._save\n"
        "def _save(self, trainer):\n"
        "    save(self, trainer)\n"
        "    if trainer.global_step == 5 and 'ckpt_path' not in ' '.join(sys.argv):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoints.SaveProgress._save = _save\n"
        "from reconlab.cli.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    file, _ = sweep(command=["${interpreter}", str(killer), "fit", "--test_after_fit=true", "${args}"])
    words = ["sweep", str(file), "--profile", "smoke", f"--out={tmp_path / 'killed'}"]
    assert main([*words, *extra]) == 1
    cell = tmp_path / "killed/tiny/cells/row-seed1"
    assert json.loads((cell / "cell.json").read_text())["reason"].startswith(f"killed by {signal.SIGKILL.name}")
    assert torch.load(cell / "000/checkpoints/last.ckpt", weights_only=True)["global_step"] == 5
    assert main([*words, "--retry-failed", *extra]) == 0
    resumed = json.loads((cell / "cell.json").read_text())
    assert (resumed["run"], resumed["resumed_from"]) == ("001", "000/checkpoints/last.ckpt")
    assert resumed["steps"] == whole["steps"] == 7
    names = [k for k in whole["values"] if k != "seconds_per_step"]
    assert {k: resumed["values"][k] for k in names} == pytest.approx({k: whole["values"][k] for k in names}, rel=1e-4)
    # A trained cell whose test values are lost is only tested, and comes to the same
    shutil.rmtree(cell / "000")
    report = json.loads((cell / "001/run.json").read_text())
    kept = {k: v for k, v in report["metrics"].items() if not k.startswith("test/")}
    (cell / "001/run.json").write_text(json.dumps({**report, "status": "failed", "metrics": kept}))
    (cell / "cell.json").unlink()
    assert main([*words, *extra]) == 0
    tested = json.loads((cell / "cell.json").read_text())
    assert (tested["run"], tested["trained_run"]) == ("002", "001")
    assert {k: tested["values"][k] for k in names} == pytest.approx({k: whole["values"][k] for k in names}, rel=1e-4)


def test_a_fit_leaves_its_final_state_and_tests_it(repository, data, tmp_path, capsys):
    # Validation after step 3 of 4: its state must not be taken for the last.
    config = tmp_path / "a.yaml"
    files = [str(repository / "configs" / f) for f in ("atlasnet_chamfer.yaml", "profiles/smoke.yaml")]
    config.write_text(yaml.safe_dump({"base": files, "name": "a", "trainer": {"val_check_interval": 3}}))
    words = [f"--config={config}", f"--data.root={data}", "--data.build=never", f"--out={tmp_path}"]
    assert main(["fit", *words, "--test_after_fit=true", "--seed_everything=5"]) == 0
    shown = capsys.readouterr().out
    assert "first" not in shown.split("Test metrics")[1], "one value, not a history of one"
    run = tmp_path / "a" / "000"
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4
    metrics = json.loads((run / "run.json").read_text())["metrics"]
    assert {k.split("/")[0] for k in metrics} == {"val", "test"}
    assert main(["test", f"--ckpt_path={run}/checkpoints/last.ckpt", f"--out={tmp_path}", "--name=again"]) == 0
    again = json.loads((tmp_path / "again" / "000" / "run.json").read_text())["metrics"]
    assert again == pytest.approx({k: v for k, v in metrics.items() if k.startswith("test/")}, rel=1e-5)
    assert yaml.safe_load((tmp_path / "again" / "000" / "config.yaml").read_text())["data"]["seed"] == 5
    assert main(["validate", *words, "--data.seed=2", "--name=v"]) == 0, "base works for every command"
    assert yaml.safe_load((tmp_path / "v" / "000" / "config.yaml").read_text())["data"]["seed"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--profile", "huge"], "has no profile 'huge'"),
        (["--engine", "kubernetes"], "no engine 'kubernetes'"),
        (["--address", "here:1"], "--address goes with --engine ray"),
        (["--jobs", "0"], "--jobs is 0"),
        (["--only", "row=none"], "no cell has row 'none'"),
        (["--model.lr=1"], "come after a lone --"),
        (["--slurm.partition=x"], "--slurm.partition goes with --engine submitit"),
        (["--", "model.lr"], "written as --key=value"),
        (["--", "--config=gone.yaml"], "names the config gone.yaml"),
    ],
)
def test_mistakes_are_sentences(words, said, sweep, tmp_path, capsys, one_sentence):
    file, _ = sweep()
    assert main(["sweep", str(file), f"--out={tmp_path / 'out'}", *words]) == 2
    assert said in one_sentence(capsys)
    assert not (tmp_path / "out" / "tiny" / "cells").exists()


def test_a_sweep_without_a_table_has_no_profiles(sweep, tmp_path, capsys, one_sentence):
    file, _ = sweep()
    (tmp_path / "configs/tables/tiny.yaml").unlink()
    assert main(["sweep", str(file), "--profile", "desk", f"--out={tmp_path}"]) == 2
    assert "needs a table of the sweep's name" in one_sentence(capsys)
    assert main(["sweep", str(tmp_path / "gone.yaml")]) == 2
    assert "There is no sweep file" in one_sentence(capsys)


def test_fit_says_what_is_wrong_with_bases(tmp_path, capsys, one_sentence):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    assert main(["fit", f"--config={tmp_path}/a.yaml"]) == 2
    assert "bases of one another" in one_sentence(capsys)
    assert main(["fit", "--base=a.yaml"]) == 2
    assert "several --config" in one_sentence(capsys)
