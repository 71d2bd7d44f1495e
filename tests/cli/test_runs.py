"""Whole commands on a small dataset: what a user does, and what a user does wrong."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
import yaml

from reconlab.cli.__main__ import main


@pytest.fixture
def copy(data, tmp_path) -> Path:
    """The dataset, for tests that damage it."""
    shutil.copytree(data, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def options(repository, tmp_path):
    """Options of a run of seconds with a loss' config."""

    def make(loss: str, root: Path, *more: str, command: str = "fit") -> list[str]:
        configs = repository / "configs"
        return [
            command,
            *("--config", str(configs / f"atlasnet_{loss}.yaml")),
            *("--config", str(configs / "profiles" / "smoke.yaml")),
            f"--data.root={root}",
            "--data.build=never",
            f"--out={tmp_path / 'runs'}",
            *more,
        ]

    return make


def one_sentence(capsys) -> str:
    """What went to standard error: one line, no traceback."""
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("reconlab:")]
    assert len(lines) == 1, error
    assert "Traceback" not in error
    return lines[0]


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


def test_wandb_works_offline(data, options, tmp_path, repository, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    overlay = str(repository / "configs" / "wandb.yaml")
    assert main(options("chamfer", data, "--config", overlay)) == 0
    folder = tmp_path / "runs/atlasnet_chamfer/000"
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))
    assert (folder / "metrics.csv").is_file()


def test_predict_writes_meshes_for_any_images(trained, data, tmp_path, capsys):
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


# What users do wrong ------------------------------------------------------------------------------------------


def test_missing_dataset(options, tmp_path, capsys):
    assert main(options("chamfer", tmp_path / "nowhere")) == 2
    assert "nowhere does not exist" in one_sentence(capsys)


def test_empty_category(copy, options, capsys):
    for split in ("train", "val", "test"):
        (copy / "lamp" / f"{split}.lst").write_text("")
    assert main(options("chamfer", copy)) == 2
    assert "lamp is empty" in one_sentence(capsys)


@pytest.mark.parametrize(("file", "damage"), [("views/000.png", b"\x89PNG junk"), ("pointcloud.npz", b"PK junk")])
def test_corrupt_file_is_named(file, damage, copy, options, capsys):
    for path in copy.glob(f"*/*/{file}"):
        path.write_bytes(damage)
    assert main(options("chamfer", copy, "--data.train_view=0")) == 2
    assert Path(file).name in one_sentence(capsys)


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--model.network.init_args.latnet=3", "latnet"),
        ("--trainer.max_stpes=3", "max_stpes"),
        ("--model.loss=Chmfer", "Chmfer"),
        ("--data.batch_size=zero", "batch_size"),
        ("--data.batch_size=0", "batch_size"),
        ("--model.lr=-1", "model.lr"),
        ("--config=absent.yaml", "absent.yaml"),
        ("--model.network.init_args.patches=0", "patches"),
    ],
)
def test_misspelt_or_impossible_settings(option, named, data, options, capsys):
    assert main(options("chamfer", data, option)) == 2
    assert named in one_sentence(capsys)


def test_loss_that_needs_what_the_data_lacks(copy, options, capsys):
    for path in copy.glob("*/*/mesh.npz"):
        path.unlink()
    assert main(options("drkfs", copy)) == 2
    sentence = one_sentence(capsys)
    assert "'mesh'" in sentence
    assert "the loss WeightedSum" in sentence
    assert main(options("chamfer", copy)) == 0, "a loss that does not need meshes trains on"


def test_checkpoint_of_another_network(trained, data, options, capsys):
    last = trained / "checkpoints" / "last.ckpt"
    assert main(options("chamfer", data, f"--ckpt_path={last}", "--model.network.init_args.latent=16")) == 2
    assert "does not fit AtlasNet" in one_sentence(capsys)
    assert main(options("autoencoder", data, f"--ckpt_path={last}", command="test")) == 2
    assert "AtlasNetAutoencoder" in one_sentence(capsys)


def test_damaged_or_missing_checkpoint(trained, data, options, tmp_path, capsys):
    whole = (trained / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    for name in ("cut.ckpt", "absent.ckpt"):
        assert main(options("chamfer", data, f"--ckpt_path={tmp_path / name}", command="test")) == 2
        assert name in one_sentence(capsys)
    assert main(["test", "--ckpt_path", str(tmp_path / "x" / "y.ckpt")]) == 2
    assert "config.yaml does not exist" in one_sentence(capsys)


def test_unwritable_output(data, options, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main([*options("chamfer", data), f"--out={tmp_path / 'file'}"]) == 2
    assert "Cannot write the run directory" in one_sentence(capsys)


def test_bad_meshes_are_named_and_the_rest_is_built(tmp_path, capsys):
    folder = tmp_path / "in" / "chair"
    folder.mkdir(parents=True)
    (tmp_path / "in" / "empty").mkdir()
    for i, extents in enumerate([(1, 2, 1), (2, 1, 1), (1, 1, 3)]):
        trimesh.creation.box(extents).export(folder / f"good{i}.obj")
    vertices = np.array(trimesh.creation.box().vertices)
    vertices[0, 0] = np.nan
    trimesh.Trimesh(vertices, trimesh.creation.box().faces, process=False).export(folder / "nan.ply")
    (folder / "faceless.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    (folder / "broken.glb").write_bytes(b"glTF?")
    out = tmp_path / "out"
    sizes = ["--views", "1", "--image_size", "32", "--points", "100", "--queries", "100"]
    arguments = ["data", "build", "--source", "meshes", "--input", str(tmp_path / "in"), "--out", str(out), *sizes]
    assert main(arguments) == 2
    text = capsys.readouterr()
    for name in ("nan", "faceless", "broken", "empty"):
        assert name in text.out
    assert "4 inputs could not be used" in text.err
    assert sorted(p.name for p in (out / "chair").iterdir() if p.is_dir()) == ["good0", "good1", "good2"]
    assert main(["data", "check", str(out)]) == 0
    (out / "chair" / "good1" / "points.npz").write_bytes(b"rot")
    assert main(["data", "check", str(out)]) == 2
    assert "points.npz" in capsys.readouterr().out
    assert main(["data", "build", "--source", "synth", "--out", str(out)]) == 2, "another build is not overwritten"
    assert main(["data", "build", "--source", "meshes", "--out", str(out)]) == 2
    assert "--input" in capsys.readouterr().err


def wait_for(condition, process, seconds=240):
    """Poll until the condition holds while the process lives."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def start(arguments: list[str]) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "reconlab.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_ctrl_c_during_a_fit_keeps_the_state(data, options, tmp_path, capsys):
    run = tmp_path / "runs" / "atlasnet_chamfer" / "000"
    process = start(options("chamfer", data, "--trainer.max_steps=100000"))
    wait_for(lambda: (run / "checkpoints" / "last.ckpt").exists(), process)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    saved = run / "checkpoints" / "interrupted.ckpt"
    step = torch.load(saved, weights_only=True)["global_step"]
    assert main(options("chamfer", data, f"--ckpt_path={saved}", f"--trainer.max_steps={step + 2}")) == 0


def test_ctrl_c_during_a_build_leaves_nothing_half_written(tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["data", "build", "--source", "synth", "--out", str(out), "--count", "200", "--categories", "lamp"]
    arguments += ["--views", "1", "--image_size", "32", "--points", "100", "--queries", "100"]
    process = start(arguments)
    wait_for(lambda: len(list(out.glob("lamp/*/checksums.json"))) >= 2, process)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert main(["data", "check", str(out)]) == 2, "an unfinished build is not taken for a dataset"
    capsys.readouterr()
    whole = [p for p in (out / "lamp").iterdir() if p.is_dir() and not p.name.startswith(".")]
    assert all((p / "checksums.json").is_file() for p in whole), "only whole shapes have their final name"
