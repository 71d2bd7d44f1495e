"""Whole commands on a small dataset: what a user does."""

import csv
import json
import os
import pty
import shutil
import subprocess
import sys

import pytest
import torch
import trimesh
import yaml

from reconlab.cli.__main__ import main


def test_run_directory_is_complete(trained):
    names = {p.name for p in trained.iterdir()}
    assert {"config.yaml", "run.json", "metrics.csv", "checkpoints", "pictures"} <= names
    run = json.loads((trained / "run.json").read_text())
    assert run["status"] == "finished"
    assert run["steps"] == 4
    assert run["protocols"]["cd"]["chamfer_dpc"]["factor"] == 100
    assert run["metrics"]["val/chamfer_dpc"] > 0
    assert (trained / "checkpoints" / "last.ckpt").is_file()
    assert list((trained / "pictures").glob("*.png"))
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["model"]["loss"]["init_args"]["points"] == 250, "interpolations are resolved"
    header = (trained / "metrics.csv").read_text().splitlines()[0]
    assert "train/loss" in header
    assert "val/voxel_iou/chair" in header


@pytest.mark.parametrize("loss", ["drwr", "pixelmse", "drkfs", "autoencoder"])
def test_every_config_trains(loss, data, options, tmp_path):
    more = ("--model.loss.init_args.start=null",) if loss in ("pixelmse", "drkfs") else ()
    assert main(options(loss, data, *more)) == 0
    run = json.loads((tmp_path / f"runs/atlasnet_{loss}/000/run.json").read_text())
    assert run["status"] == "finished"
    with open(tmp_path / f"runs/atlasnet_{loss}/000/metrics.csv", newline="") as stream:
        losses = [row["train/loss"] for row in csv.DictReader(stream) if row["train/loss"]]
    assert len(losses) == 4
    assert all(0 < float(value) < 10 for value in losses)


def test_resume_continues_and_uses_a_new_directory(trained, data, options, tmp_path):
    last = trained / "checkpoints" / "last.ckpt"
    assert main(options("chamfer", data, f"--ckpt_path={last}", "--trainer.max_steps=6")) == 0
    run = json.loads((tmp_path / "runs/atlasnet_chamfer/000/run.json").read_text())
    assert run["steps"] == 6
    assert torch.load(last, weights_only=True)["global_step"] == 4, "the first run is untouched"


def test_checkpoint_brings_its_config_to_test(trained, tmp_path):
    status = main(["test", f"--ckpt_path={trained}/checkpoints/last.ckpt", f"--out={tmp_path}"])
    assert status == 0
    folder = tmp_path / "atlasnet_chamfer" / "000"
    rows = (folder / "predictions/per_sample_rank0.csv").read_text().splitlines()
    meshes = list(folder.glob("predictions/*/*.obj"))
    run = json.loads((folder / "run.json").read_text())
    assert len(rows) - 1 == len(meshes) == run["metrics"]["test/voxel_iou/n"]
    assert len(trimesh.load_mesh(meshes[0]).faces) == 25 * 9 * 2


def test_a_checkpoint_is_loaded_whatever_the_order_of_the_options(trained, tmp_path):
    # The run's own config says ``ckpt_path: null``; given last, it must not undo the option.
    found = []
    for name, order in (("before", 1), ("after", -1)):
        given = [f"--config={trained}/config.yaml", f"--ckpt_path={trained}/checkpoints/last.ckpt"][::order]
        assert main(["test", *given, f"--out={tmp_path}", f"--name={name}", "--save_meshes=false"]) == 0
        found.append(json.loads((tmp_path / name / "000" / "run.json").read_text())["metrics"])
    assert found[0] == found[1]


def test_two_processes_judge_every_sample_once(trained, data, options, tmp_path):
    # 3 test samples in each of 2 categories, of which limit_test_batches must not hide any: 6 on 2 ranks in
    # batches of 2 gives shards of 3. The same checkpoint on one process must give the same means.
    common = (f"--ckpt_path={trained}/checkpoints/last.ckpt", "--trainer.limit_test_batches=1.0")
    single = options("chamfer", data, *common, "--name=one", command="test")
    assert main(single) == 0
    double = options("chamfer", data, *common, "--name=two", command="test")
    double += ["--trainer.devices=2", "--trainer.accelerator=cpu", "--trainer.strategy=ddp"]
    done = subprocess.run(
        [sys.executable, "-m", "reconlab.cli", *double], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / f"runs/{n}/000/run.json").read_text())["metrics"] for n in ("one", "two"))
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert two[key] == pytest.approx(value, rel=1e-5), key
    assert len(list((tmp_path / "runs/two").iterdir())) == 1, "one directory for both ranks"


def test_two_processes_train_on_an_uneven_dataset(data, options, tmp_path):
    # 6 training shapes in batches of 4 on 2 ranks: the second batch of a rank would be short, of 1 a rank.
    arguments = options("chamfer", data, "--data.batch_size=4", "--trainer.limit_val_batches=1.0")
    arguments += ["--trainer.devices=2", "--trainer.accelerator=cpu", "--trainer.strategy=ddp"]
    done = subprocess.run(
        [sys.executable, "-m", "reconlab.cli", *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "sync_dist" not in done.stderr
    run = json.loads((tmp_path / "runs/atlasnet_chamfer/000/run.json").read_text())
    assert (run["status"], run["steps"]) == ("finished", 4)
    lists = [(data / c / "val.lst").read_text().split() for c in ("chair", "lamp")]
    assert run["metrics"]["val/chamfer_dpc/n"] == sum(map(len, lists)), "every sample once"
    assert [p.name for p in (tmp_path / "runs/atlasnet_chamfer").iterdir()] == ["000"]


def test_processes_of_an_outside_launcher_share_a_directory(tmp_path, monkeypatch):
    from reconlab.cli.launch import RUN_DIRECTORY, choose_run_directory

    monkeypatch.delenv(RUN_DIRECTORY, raising=False)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    chosen = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        chosen.append(choose_run_directory(str(tmp_path), "a"))
    assert chosen[0] == chosen[1]
    monkeypatch.setenv("RANK", "0")
    assert choose_run_directory(str(tmp_path), "a") != chosen[0], "the next launch has its own"


def test_resume_sees_what_an_uninterrupted_run_sees(data, options, tmp_path, monkeypatch):
    # Epochs of 3 batches, a checkpoint in the middle of the second: ids and losses must go on as if never stopped.
    from reconlab.lab import Reconstruction

    seen: list[tuple[int, list[str], float]] = []
    step = Reconstruction.training_step

    def watch(self, batch, index):
        loss = step(self, batch, index)
        seen.append((self.global_step, list(batch.ids), loss.item()))
        return loss

    monkeypatch.setattr(Reconstruction, "training_step", watch)
    # Milestones are fractions of the run, so runs of different length must do without.
    common = ("--trainer.val_check_interval=1", "--data.batch_size=2", "--model.milestones=null")
    assert main(options("chamfer", data, *common, "--trainer.max_steps=8", "--name=whole")) == 0
    whole, seen[:] = list(seen), []
    assert main(options("chamfer", data, *common, "--trainer.max_steps=4", "--name=part")) == 0
    last = tmp_path / "runs/part/000/checkpoints/last.ckpt"
    assert main(options("chamfer", data, *common, "--trainer.max_steps=8", f"--ckpt_path={last}")) == 0
    assert [(s, i) for s, i, _ in seen] == [(s, i) for s, i, _ in whole]
    assert [x for *_, x in seen] == pytest.approx([x for *_, x in whole], rel=1e-4)


def test_validate_and_a_terminal(trained, tmp_path):
    # A run that was trained into a pipe is judged on a terminal: a bar there, and our table, not Lightning's.
    leader, follower = pty.openpty()
    arguments = ["validate", f"--ckpt_path={trained}/checkpoints/last.ckpt", f"--out={tmp_path}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "reconlab.cli", *arguments], stdout=follower, stderr=subprocess.PIPE, text=True
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    _, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    text = shown.decode(errors="replace")
    assert "Validation metrics" in text
    assert "Validate metric" not in text, "Lightning's own table"


def test_decoder_source_may_disappear(data, options, tmp_path):
    assert main(options("autoencoder", data)) == 0
    source = tmp_path / "runs/atlasnet_autoencoder/000/checkpoints/last.ckpt"
    more = (f"--model.network.init_args.decoder_from={source}", "--model.network.init_args.freeze_decoder=true")
    assert main(options("chamfer", data, *more)) == 0
    shutil.rmtree(tmp_path / "runs/atlasnet_autoencoder")
    last = tmp_path / "runs/atlasnet_chamfer/000/checkpoints/last.ckpt"
    assert main(["test", f"--ckpt_path={last}", f"--out={tmp_path}/judged"]) == 0


def test_wandb_works_offline(data, options, tmp_path, repository, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    overlay = str(repository / "configs" / "wandb.yaml")
    assert main(options("chamfer", data, "--config", overlay)) == 0
    folder = tmp_path / "runs/atlasnet_chamfer/000"
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))
    assert (folder / "metrics.csv").is_file()


def test_predict_writes_meshes_for_any_images(trained, data, tmp_path, capsys, one_sentence):
    images = sorted(data.glob("chair/*/views/000.png"))[:2]
    out = tmp_path / "out"
    arguments = ["predict", "--ckpt_path", str(trained / "checkpoints/last.ckpt"), "--out", str(out), "--picture"]
    assert main([*arguments, "--images", *map(str, images)]) == 0
    written = sorted(p.name for p in out.iterdir())
    folder = images[1].parent.name
    assert written == sorted(["000.glb", "000.obj", f"{folder}_000.glb", f"{folder}_000.obj", "reconstructions.png"])
    assert len(trimesh.load(out / "000.glb", force="mesh").faces) == 25 * 9 * 2
    assert "alpha channel used as the mask" in capsys.readouterr().out
    assert main([*arguments, "--images", str(images[0]), str(tmp_path / "absent.png")]) == 2
    assert "1 of 2 images" in one_sentence(capsys)
