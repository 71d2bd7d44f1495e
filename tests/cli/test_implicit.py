"""IM-Net's stages as commands: auto-encoder, codes, DR-KFS from there, meshes of the test set and of a picture."""

import csv
import shutil
from pathlib import Path

import pytest
import torch
import trimesh

from reconlab.cli.__main__ import main
from reconlab.lab.predict import load_network, read_image
from reconlab.networks.imnet_decoder import STEEPNESS

SMALL = ("code: 16", "decoder_width: 8", "resolution: 24", "coarse: 12")


def last(runs: Path, name: str) -> Path:
    return runs / name / "000" / "checkpoints" / "last.ckpt"


def with_a_surface(path: Path, data: Path) -> Path:
    """After four steps a field may be empty: raise its decoder until half the cube is inside."""
    network = load_network(path)
    picture, _, _ = read_image(next(data.glob("chair/*/views/*.png")), 64)
    field = network(picture[None])
    content = torch.load(path, weights_only=True)
    bias = content["state_dict"]["network.decoder.others.5.bias"]
    bias -= field.lattice().median() / STEEPNESS
    torch.save(content, path)
    return path


@pytest.mark.slow
def test_all_stages(repository: Path, data: Path, tmp_path: Path) -> None:
    configs, runs = repository / "configs", tmp_path / "runs"
    sizes = [f"--model.network.init_args.{s.replace(': ', '=')}" for s in SMALL]

    def run(command: str, name: str, *more: str) -> Path:
        files = [f"--config={configs / f}" for f in (f"{name}.yaml", "profiles/smoke.yaml")]
        where = [f"--data.root={data}", "--data.build=never", f"--out={runs}", "--save_meshes=true"]
        assert main([command, *files, *where, *sizes, *more]) == 0
        return runs / name

    def losses(name: str) -> list[float]:
        with open(runs / name / "000" / "metrics.csv", newline="") as stream:
            return [float(row["train/loss"]) for row in csv.DictReader(stream) if row["train/loss"]]

    run("fit", "imnet_autoencoder")
    first = last(runs, "imnet_autoencoder")
    run("fit", "imnet_codes", f"--model.network.init_args.decoder_from={first}")
    moved = tmp_path / "moved.ckpt"
    shutil.move(last(runs, "imnet_codes"), moved)
    shutil.rmtree(runs / "imnet_autoencoder")
    run("fit", "imnet_codes", f"--ckpt_path={moved}", "--trainer.max_steps=6")  # goes on without the first stage
    assert len(losses("imnet_codes")) == 4
    run("fit", "imnet_drkfs", f"--model.network.init_args.decoder_from={moved}",
        "--model.loss.init_args.start=null")  # fmt: skip
    found = losses("imnet_drkfs")
    assert len(found) == 4
    assert all(0 < value < 10 for value in found)
    trained = with_a_surface(last(runs, "imnet_drkfs"), data)
    assert main(["test", f"--ckpt_path={trained}", f"--out={tmp_path / 'test'}"]) == 0
    assert list(tmp_path.glob("test/**/*.obj"))
    picture = next(data.glob("chair/*/views/*.png"))
    out = tmp_path / "predicted"
    assert main(["predict", f"--ckpt_path={trained}", f"--images={picture}", f"--out={out}"]) == 0
    mesh = trimesh.load(next(out.glob("**/*.obj")), force="mesh")
    assert len(mesh.faces) > 0
    assert mesh.is_watertight
