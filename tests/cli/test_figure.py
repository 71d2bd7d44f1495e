"""``reconlab figure``: one file, or one sentence."""

from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from reconlab.cli.__main__ import main
from reconlab.cli.figure import FIGURES

QUICK = ("--points=30", "--steps=2")


@pytest.mark.parametrize("name", FIGURES)
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
