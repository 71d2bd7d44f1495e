"""The notebooks run from a clean kernel, in seconds at a small scale, and are committed without outputs."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest
import trimesh

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
NAMES = sorted(p.stem for p in NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("name", NAMES)
def test_no_outputs_are_committed(name):
    content = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())
    assert content["nbformat"] == 4
    for cell in content["cells"]:
        assert not cell.get("outputs"), f"cell {cell['id']} of {name} has outputs: clear them"
        assert cell.get("execution_count") is None
    assert content["metadata"].keys() == {"kernelspec", "language_info"}


@pytest.mark.parametrize("name", NAMES)
def test_each_begins_with_what_it_needs_and_ends_with_what_to_try(name, repository):
    cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]
    first, last = ("".join(cells[i]["source"]) for i in (0, -1))
    assert "**Needs**" in first
    assert last.startswith("## What to try next")
    named = re.findall(r"(?:configs|docs|results)/[\w/.]+\.\w+|\w+\.ipynb", first + last)
    assert [n for n in named if not (repository / n).exists() and not (NOTEBOOKS / n).exists()] == []


def test_the_list_names_them_all():
    text = (NOTEBOOKS / "README.md").read_text()
    assert [n for n in NAMES if f"{n}.ipynb" not in text] == []


@pytest.fixture
def run(monkeypatch, tmp_path, repository):
    """Executes a notebook at a scale of seconds; returns its cells' outputs, all in one list."""
    for module in ("nbclient", "nbformat", "ipykernel"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed (pip install 'reconlab[test]')")
    import nbclient
    import nbformat

    def execute(name: str, folder: Path = NOTEBOOKS, **settings: object) -> list:
        monkeypatch.setenv("RECONLAB_NOTEBOOK_OUT", str(tmp_path))
        for key in ("CHECKPOINT", "DATA", "PROFILE"):
            monkeypatch.delenv(f"RECONLAB_NOTEBOOK_{key}", raising=False)
        for key, value in settings.items():
            monkeypatch.setenv(f"RECONLAB_NOTEBOOK_{key}", str(value))
        before = untracked(repository)
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        client = nbclient.NotebookClient(
            notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        )
        client.execute()
        assert untracked(repository) == before  # it writes into RECONLAB_NOTEBOOK_OUT only
        return [output for cell in notebook.cells for output in cell.get("outputs", [])]

    return execute


def untracked(repository: Path) -> tuple[str, list[Path]]:
    """What git does not know (None outside a checkout), and the runs that are there."""
    done = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard", "notebooks"],
        cwd=repository, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout, sorted((repository / "runs" / "notebooks").glob("*"))


def pictures(outputs: list) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs)


def printed(outputs: list) -> str:
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream")


def test_drwr_losses(run):
    outputs = run("drwr_losses", STEPS=3)
    assert pictures(outputs) == 5
    rows = {line[:12].strip(): line[12:].split() for line in printed(outputs).splitlines() if "%" in line}
    assert rows.keys() == {"full", "no ω", "no δ", "no ω, no δ"}
    assert all(float(inside.rstrip("%")) > 15 for inside, _, _ in rows.values())


@pytest.mark.slow
def test_drwr_gallery_trains_or_takes_a_checkpoint(run, tmp_path):
    outputs = run("drwr_gallery", STEPS=2, SHAPES=14)
    assert pictures(outputs) == 3
    made = tmp_path / "drwr_gallery"
    assert sorted(p.stem for p in (made / "states").glob("*.ckpt")) == ["epoch=0-step=1", "epoch=0-step=2"]
    given = made / "dpc_drwr_32" / "000" / "checkpoints" / "last.ckpt"
    outputs = run("drwr_gallery", STEPS=2, SHAPES=14, CHECKPOINT=given)
    assert pictures(outputs) == 3
    assert [p.name for p in (made / "dpc_drwr_32").iterdir()] == ["000"]  # nothing was trained


@pytest.mark.slow
def test_drkfs_similarity(run, repository):
    outputs = run("drkfs_similarity", folder=repository, SHAPES=1)
    assert pictures(outputs) == 3
    text = printed(outputs)
    assert "removal highest" in text
    assert "rendered, 1 chairs" in text
    assert "no checkpoints given" in text


@pytest.mark.slow
def test_drkfs_gallery(run, tmp_path):
    outputs = run("drkfs_gallery", STEPS=2, SHAPES=14, PROFILE="smoke")
    assert pictures(outputs) == 1
    (figure,) = (o["data"]["application/vnd.plotly.v1+json"] for o in outputs if "plotly" in str(o.get("data", {})))
    assert [a["text"] for a in figure["layout"]["annotations"]] == ["truth", "Chamfer", "DR-KFS"]
    assert [trace["type"] for trace in figure["data"]] == ["mesh3d"] * 3
    assert {p.name for p in (tmp_path / "drkfs_gallery").iterdir()} == {"data", "base", "chamfer", "drkfs"}


@pytest.mark.slow
def test_train_on_your_images(run, tmp_path):
    outputs = run("train_on_your_images", STEPS=2, SHAPES=8, PROFILE="smoke")
    assert pictures(outputs) == 2
    made = sorted((tmp_path / "train_on_your_images" / "reconstructions").glob("*.obj"))
    assert [p.stem for p in made] == ["photo0", "photo1", "photo2", "photo3"]
    assert all(len(trimesh.load(p, process=False).faces) > 100 for p in made)
    assert "a plain background was assumed" in printed(outputs)
