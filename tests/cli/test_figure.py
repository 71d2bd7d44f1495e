"""``reconlab figure``: one file, or one sentence."""

from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from reconlab.cli.__main__ import main
from reconlab.cli.figure import FIGURES

TRAINED = ("drwr-fig9", "drwr-fig11", "drwr-fig12", "drkfs-fig5", "drkfs-fig7")
MEASURED = ("drkfs-fig2", "drkfs-fig6", "metric-meaning")  # tests/report/
QUICK = ("--points=30", "--steps=2")


@pytest.mark.parametrize("name", [f for f in FIGURES if f not in TRAINED + MEASURED])
def test_writes_a_picture(name, tmp_path, capsys):
    out = tmp_path / "new folder" / "figure.png"
    assert main(["figure", name, "--out", str(out), "--shape=airplane", *QUICK]) == 0
    with Image.open(out) as picture:
        assert picture.format == "PNG"
        assert picture.width > 600
    assert f"picture: {out}" in capsys.readouterr().out
    assert list(out.parent.iterdir()) == [out]


def test_mesh_of_any_size_and_place(tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=2)
    pictures = []
    for scale, move in ((1.0, 0.0), (250.0, 900.0)):
        path = tmp_path / f"ball{scale}.ply"
        trimesh.Trimesh(ball.vertices * scale + move, ball.faces).export(path)
        out = tmp_path / f"{scale}.png"
        assert main(["figure", "drwr-fig3", f"--out={out}", f"--mesh={path}", "--steps=0", "--points=30"]) == 0
        pictures.append(Image.open(out).convert("L").point(lambda v: 255 * (v > 128)).crop((0, 0, 400, 400)))
    one, two = (np.asarray(p) for p in pictures)
    assert (one != two).sum() < 100, "the mesh is brought into the object frame"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["drwr-fig4"], "no figure 'drwr-fig4'; did you mean 'drwr-fig"),
        (["mona_lisa"], "choose from drwr-fig3, drwr-fig5"),
        (["drwr-fig9"], "needs --checkpoint"),
        (["drwr-fig11", "--checkpoint={}"], "no checkpoints named by their step"),
        (["drwr-fig12", "--checkpoint=a.ckpt", "--checkpoint=b.ckpt"], "takes one --checkpoint, not 2"),
        (["drwr-fig9", "--checkpoint=a.ckpt", "--count=0"], "--count is 0"),
        (["drwr-fig9", "--checkpoint={}/a.ckpt"], "a.ckpt does not exist"),
        (["drwr-fig3", "--mesh={}/absent.obj"], "absent.obj does not exist"),
        (["drwr-fig3", "--mesh={}"], "is not a file"),
        (["drwr-fig3", "--mesh={}/file.txt"], "file.txt cannot be read as a mesh"),
        (["drwr-fig3", "--shape=boat"], "'boat'"),
        (["drwr-fig3", "--points=many"], "--points"),
        (["drwr-fig3", "--points=0"], "--points is 0"),
        (["drwr-fig3", "--frames=3"], "--frames"),
        ([], "FIGURE"),
        (["drwr-fig3", "--out={}"], "--out is"),
        (["drwr-fig3", "--out={}/file.txt/x.png"], "is not a folder"),
        (["drwr-fig3", "--out={}/x.jpg"], "written as .png"),
        (["drwr-fig3", "--out={}/folder.png"], "is a folder"),
    ],
)
def test_mistakes_are_one_sentence(arguments, named, tmp_path, capsys, one_sentence):
    (tmp_path / "file.txt").write_text("not a mesh")
    (tmp_path / "folder.png").mkdir()
    out = f"--out={tmp_path / 'x.png'}"
    assert main(["figure", out, *(a.format(tmp_path) for a in arguments)]) == 2
    assert named in one_sentence(capsys)
    assert not (tmp_path / "x.png").exists()


def test_out_is_needed(capsys, one_sentence):
    assert main(["figure", "drwr-fig3"]) == 2
    assert "--out" in one_sentence(capsys)


def test_no_permission_is_found_before_the_work(tmp_path, monkeypatch, capsys, one_sentence):
    from reconlab.cli import figure

    monkeypatch.setattr(figure.os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write anywhere
    assert main(["figure", "drwr-fig3", f"--out={tmp_path / 'x.png'}"]) == 2
    assert "no permission to write" in one_sentence(capsys)


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch, capsys, one_sentence):
    from reconlab.lab import pictures

    def refuse(picture, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pictures, "save_picture", refuse)
    assert main(["figure", "drwr-fig5", f"--out={tmp_path / 'x.png'}", *QUICK]) == 2
    assert "No space left on device" in one_sentence(capsys)


@pytest.fixture(scope="module")
def dpc_run(repository, data, tmp_path_factory) -> Path:
    """The run directory of two steps of DPC's network, with its checkpoint of step 2."""
    out = tmp_path_factory.mktemp("runs")
    options = [f"--data.root={data}", "--data.build=never", f"--out={out}", "--data.image_size=16"]
    options += ["--trainer.max_steps=2", "--trainer.val_check_interval=1", "--trainer.limit_val_batches=1"]
    options += ["--model.network.init_args.points=50", "--model.loss.init_args.points=50"]
    assert main(["fit", f"--config={repository / 'configs' / 'dpc_drwr_32.yaml'}", *options]) == 0
    return out / "dpc_drwr_32" / "000"


@pytest.mark.parametrize(
    ("name", "options", "columns", "rows"),
    [("drwr-fig9", ["--count=2"], 2, 2), ("drwr-fig11", [], 2, 5), ("drwr-fig12", ["--count=1"], 9, 1)],
)
def test_figures_of_a_trained_network(name, options, columns, rows, dpc_run, data, tmp_path):
    out = tmp_path / "figure.png"
    given = dpc_run if name == "drwr-fig11" else dpc_run / "checkpoints" / "last.ckpt"
    arguments = [f"--checkpoint={given}", f"--root={data}", "--category=chair", "--split=train", f"--out={out}"]
    assert main(["figure", name, *arguments, *options]) == 0
    with Image.open(out) as picture:
        assert picture.width == columns * 128
        assert rows * 128 <= picture.height < (rows + 1) * 128
        inked = np.asarray(picture.convert("L")) < 200
    tiles = inked[-rows * 128 :].reshape(rows, 128, columns, 128).any((1, 3))
    assert tiles.all(), "every tile shows something"


def test_figures_name_a_wrong_checkpoint_or_too_few_shapes(dpc_run, trained, data, tmp_path, capsys, one_sentence):
    common = [f"--root={data}", "--category=chair", f"--out={tmp_path / 'x.png'}", "--split=train"]
    last = dpc_run / "checkpoints" / "last.ckpt"
    assert main(["figure", "drwr-fig12", f"--checkpoint={trained / 'checkpoints' / 'last.ckpt'}", *common]) == 2
    assert "holds a AtlasNet" in one_sentence(capsys)
    elsewhere = [f"--root={tmp_path}/nowhere", f"--out={tmp_path / 'x.png'}"]
    assert main(["figure", "drwr-fig9", f"--checkpoint={last}", *elsewhere]) == 2
    assert "nowhere" in one_sentence(capsys)
    assert main(["figure", "drwr-fig9", f"--checkpoint={last}", f"--checkpoint={last}", "--count=1", *common]) == 2
    assert "two rows are called 'last'" in one_sentence(capsys)
    assert main(["figure", "drwr-fig9", f"--checkpoint={last}", "--seed=-1", *common]) == 2
    assert "--seed is -1" in one_sentence(capsys)
    assert main(["figure", "drwr-fig9", f"--checkpoint=ours={last}", "--count=50", *common]) == 2
    assert "50 shapes" in one_sentence(capsys)
    assert main(["figure", "drwr-fig9", f"--checkpoint=ours={tmp_path}/none.ckpt", "--count=1", *common]) == 2
    assert "none.ckpt does not exist" in one_sentence(capsys)
