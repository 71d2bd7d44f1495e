"""Fixtures of the study's tests: two runs without any training, and a browser."""

import csv
import importlib.util
import json
from pathlib import Path

import pytest
import trimesh
import yaml

from reconlab.datasets import format as files

spec = importlib.util.spec_from_file_location("reconlab_browser", Path(__file__).parents[1] / "browser.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
browser = module.browser


def shapes_of(data: Path) -> list[tuple[str, str]]:
    return [(p.parent.parent.name, p.parent.name) for p in sorted(data.glob(f"*/*/{files.MESH}"))]


def write_run(
    folder: Path, data: Path, stretch: float, names=None, suffix: str = "", scores=None, view: int = 0
) -> Path:
    """A run directory whose reconstructions are the true shapes, stretched upwards."""
    lines = []
    for category, name in names or shapes_of(data):
        arrays = files.read_npz(data / category / name / files.MESH, "vertices", "faces")
        target = folder / "predictions" / category / f"{name}{suffix}.obj"
        target.parent.mkdir(parents=True, exist_ok=True)
        trimesh.Trimesh(arrays["vertices"] * [1, stretch, 1], arrays["faces"], process=False).export(target)
        lines.append({"category": category, "id": name, "view": view, **(scores or {}).get((category, name), {})})
    with (folder / "predictions" / "per_sample_rank0.csv").open("w", newline="") as stream:
        keys = list(dict.fromkeys(k for line in lines for k in line))
        writer = csv.DictWriter(stream, keys)
        writer.writeheader()
        writer.writerows(lines)
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": {"root": str(data)}}))
    return folder


@pytest.fixture(scope="session")
def pair(data, tmp_path_factory) -> tuple[Path, Path]:
    """Runs A (flattened shapes) and B (the true ones) over all twelve shapes."""
    folder = tmp_path_factory.mktemp("study_runs")
    return write_run(folder / "flattened", data, 0.4), write_run(folder / "upright", data, 1.0)


@pytest.fixture(scope="session")
def study(pair, tmp_path_factory) -> Path:
    """A study of six questions and two checks on them."""
    from reconlab.cli.__main__ import main

    out = tmp_path_factory.mktemp("study") / "out"
    options = ["--questions", "6", "--checks", "2", "--size", "96", "--title", "A <b>title</b> & more"]
    assert main(["study", "build", *map(str, pair), "--out", str(out), *options]) == 0
    return out


@pytest.fixture(scope="session")
def key(study) -> dict:
    """The study's key."""
    return json.loads((study / "study.json").read_text())


@pytest.fixture
def sheet(key):
    """Makes a participant's answers as the page hands them over: a function of the question says which option."""

    def make(participant: str, choose, side="left", finished="2026-01-01T00:00:00Z", skip: int = 0) -> dict:
        answers = []
        for position, question in enumerate(key["questions"], start=1):
            choice = next(o for o, who in question["options"].items() if who == choose(question))
            other = next(o for o in question["options"] if o != choice)
            left, right = (choice, other) if side == "left" else (other, choice)
            answers.append(
                {"question": question["id"], "position": position, "left": left, "right": right, "views": "0 1",
                 "side": side, "choice": choice, "milliseconds": 1000 * position}
            )  # fmt: skip
        for answer in answers[:skip]:
            answer |= {"side": None, "choice": None}
        return {"study": key["study"], "participant": participant, "started": "2026-01-01T00:00:00Z",
                "finished": finished, "answers": answers}  # fmt: skip

    return make


@pytest.fixture(scope="session")
def prefers():
    """Who is chosen: A or B in questions, and in checks the good or the ruined shape."""

    def make(who: str, looks: bool = True):
        return lambda q: who if q["kind"] == "question" else ("good" if looks else "ruined")

    return make


@pytest.fixture(scope="session")
def make_run():
    """The function that writes a run directory."""
    return write_run
