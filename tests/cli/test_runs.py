"""Whole commands on a small dataset: what a user does, and what a user does wrong."""

import csv
import json
import os
import pty
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
    _, error = process.communicate(timeout=120)
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
        ("--trainer.strategy=foo", "strategy"),
        ("--trainer.devices=0", "devices"),
    ],
)
def test_misspelt_or_impossible_settings(option, named, data, options, capsys):
    assert main(options("chamfer", data, option)) == 2
    assert named in one_sentence(capsys)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"model: {loss: {init_args: {pionts: 3}}}", "pionts"),
        (b"modle: {lr: 3}", "modle"),
        (b"model: {lr: '${scale.hiden}'}", "hiden"),
        (b"model: [unclosed", "bad.yaml"),
        (b"- a list", "bad.yaml"),
        (b"model: \xff\xfe", "bad.yaml"),
    ],
)
def test_bad_config_files(content, named, data, options, tmp_path, capsys):
    (tmp_path / "bad.yaml").write_bytes(content)
    assert main(options("chamfer", data, "--config", str(tmp_path / "bad.yaml"))) == 2
    assert named in one_sentence(capsys)
    assert not list((tmp_path / "runs").glob("*/*")), "no empty run directory is left"


def test_corrupt_file_in_a_loader_process(copy, options, capfd):
    for path in copy.glob("*/*/pointcloud.npz"):
        path.write_bytes(b"rot")
    assert main(options("chamfer", copy, "--data.num_workers=1")) == 2
    error = capfd.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("reconlab:")]
    assert len(lines) == 1
    assert "pointcloud.npz" in lines[0]
    assert "Traceback" not in error


def test_checkpoint_of_another_optimiser(trained, data, options, capsys):
    last = trained / "checkpoints" / "last.ckpt"
    assert (
        main(options("chamfer", data, f"--ckpt_path={last}", "--model.optimizer=sgd", "--trainer.max_steps=6")) == 2
    )
    assert "optimiser" in one_sentence(capsys)


@pytest.mark.parametrize(
    ("option", "named"),
    [("--device=nowhere", "nowhere"), ("--image_size=0", "--image_size"), ("--formats=", "--formats")],
)
def test_bad_predict_options(option, named, trained, data, tmp_path, capsys):
    image = next(data.glob("chair/*/views/000.png"))
    arguments = ["predict", f"--ckpt_path={trained}/checkpoints/last.ckpt", f"--images={image}", f"--out={tmp_path}"]
    assert main([*arguments, option]) == 2
    assert named in one_sentence(capsys)


def test_debug_shows_the_traceback(options, tmp_path):
    from reconlab.errors import ReconlabError

    with pytest.raises(ReconlabError, match="nowhere"):
        main([*options("chamfer", tmp_path / "nowhere"), "--debug"])


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
