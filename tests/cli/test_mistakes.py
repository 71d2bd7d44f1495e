"""Whole commands on a small dataset: what a user does wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from reconlab.cli.__main__ import main


def test_missing_dataset(options, tmp_path, capsys, one_sentence):
    assert main(options("chamfer", tmp_path / "nowhere")) == 2
    assert "nowhere does not exist" in one_sentence(capsys)


def test_empty_category(copy, options, capsys, one_sentence):
    for split in ("train", "val", "test"):
        (copy / "lamp" / f"{split}.lst").write_text("")
    assert main(options("chamfer", copy)) == 2
    assert "lamp is empty" in one_sentence(capsys)


@pytest.mark.parametrize(("file", "damage"), [("views/000.png", b"\x89PNG junk"), ("pointcloud.npz", b"PK junk")])
def test_corrupt_file_is_named(file, damage, copy, options, capsys, one_sentence):
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
def test_misspelt_or_impossible_settings(option, named, data, options, capsys, one_sentence):
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
def test_bad_config_files(content, named, data, options, tmp_path, capsys, one_sentence):
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


def test_checkpoint_of_another_optimiser(trained, data, options, capsys, one_sentence):
    last = trained / "checkpoints" / "last.ckpt"
    assert (
        main(options("chamfer", data, f"--ckpt_path={last}", "--model.optimizer=sgd", "--trainer.max_steps=6")) == 2
    )
    assert "optimiser" in one_sentence(capsys)


@pytest.mark.parametrize(
    ("option", "named"),
    [("--device=nowhere", "nowhere"), ("--image_size=0", "--image_size"), ("--formats=", "--formats")],
)
def test_bad_predict_options(option, named, trained, data, tmp_path, capsys, one_sentence):
    image = next(data.glob("chair/*/views/000.png"))
    arguments = ["predict", f"--ckpt_path={trained}/checkpoints/last.ckpt", f"--images={image}", f"--out={tmp_path}"]
    assert main([*arguments, option]) == 2
    assert named in one_sentence(capsys)


def test_debug_shows_the_traceback(options, tmp_path):
    from reconlab.errors import ReconlabError

    with pytest.raises(ReconlabError, match="nowhere"):
        main([*options("chamfer", tmp_path / "nowhere"), "--debug"])


def test_loss_that_needs_what_the_data_lacks(copy, options, capsys, one_sentence):
    for path in copy.glob("*/*/mesh.npz"):
        path.unlink()
    assert main(options("drkfs", copy)) == 2
    sentence = one_sentence(capsys)
    assert "'mesh'" in sentence
    assert "the loss WeightedSum" in sentence
    assert main(options("chamfer", copy)) == 0, "a loss that does not need meshes trains on"


def test_checkpoint_of_another_network(trained, data, options, capsys, one_sentence):
    last = trained / "checkpoints" / "last.ckpt"
    assert main(options("chamfer", data, f"--ckpt_path={last}", "--model.network.init_args.latent=16")) == 2
    assert "does not fit AtlasNet" in one_sentence(capsys)
    assert main(options("autoencoder", data, f"--ckpt_path={last}", command="test")) == 2
    assert "AtlasNetAutoencoder" in one_sentence(capsys)


def test_damaged_or_missing_checkpoint(trained, data, options, tmp_path, capsys, one_sentence):
    whole = (trained / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    for name in ("cut.ckpt", "absent.ckpt"):
        assert main(options("chamfer", data, f"--ckpt_path={tmp_path / name}", command="test")) == 2
        assert name in one_sentence(capsys)
    assert main(["test", "--ckpt_path", str(tmp_path / "x" / "y.ckpt")]) == 2
    assert "config.yaml does not exist" in one_sentence(capsys)


def test_unwritable_output(data, options, tmp_path, capsys, one_sentence):
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
        # A shell starts what it puts in the background with Ctrl-C ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_ctrl_c_during_a_fit_keeps_the_state(data, options, tmp_path, capsys):
    run = tmp_path / "runs" / "atlasnet_chamfer" / "000"
    process = start(options("chamfer", data, "--trainer.max_steps=100000"))
    wait_for(lambda: (run / "checkpoints" / "last.ckpt").exists(), process)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=600)
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
    _, error = process.communicate(timeout=600)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert main(["data", "check", str(out)]) == 2, "an unfinished build is not taken for a dataset"
    capsys.readouterr()
    whole = [p for p in (out / "lamp").iterdir() if p.is_dir() and not p.name.startswith(".")]
    assert all((p / "checksums.json").is_file() for p in whole), "only whole shapes have their final name"
