"""``reconlab study`` as it is typed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trimesh

from reconlab.cli.__main__ import main
from reconlab.datasets import format as files


@pytest.fixture
def runs(data, tmp_path) -> tuple[str, str]:
    """Two runs with reconstructions of all twelve shapes, without tables and config."""
    for name, stretch in (("a", 0.5), ("b", 1.0)):
        for path in data.glob(f"*/*/{files.MESH}"):
            arrays = files.read_npz(path, "vertices", "faces")
            target = tmp_path / name / "predictions" / path.parent.parent.name / f"{path.parent.name}.obj"
            target.parent.mkdir(parents=True, exist_ok=True)
            trimesh.Trimesh(arrays["vertices"] * [1, stretch, 1], arrays["faces"], process=False).export(target)
    return str(tmp_path / "a"), str(tmp_path / "b")


@pytest.fixture
def build(data, tmp_path, runs):
    """Runs ``study build`` with few questions; returns its status."""

    def run(*options: str, folders=runs, root=data) -> int:
        small = ["--questions", "3", "--checks", "1", "--size", "64"]
        rooted = ["--root", str(root)] if root else []
        return main(["study", "build", *folders, "--out", str(tmp_path / "out"), *small, *rooted, *options])

    return run


def test_help_does_not_import_torch():
    code = (
        "import sys; from reconlab.cli.study import parser; p = parser(); p.format_help(); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'scipy', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_top_share_by_scores_elsewhere(build, runs, tmp_path, capsys):
    """PS-2: of twelve samples the best quarter, ranked by tables that ``reconlab evaluate`` wrote elsewhere."""
    names = sorted(p.relative_to(Path(runs[0]) / "predictions") for p in Path(runs[0]).rglob("*.obj"))
    for name in ("va", "vb"):
        lines = [f"{p.parent},{p.stem},{100 - i},{100 - i}" for i, p in enumerate(names)]
        (tmp_path / name / "predictions").mkdir(parents=True)
        table = "category,id,lfd,mvcnn\n" + "\n".join(lines)
        (tmp_path / name / "predictions" / "per_sample_rank0.csv").write_text(table + "\n")
    scores = ["--scores", str(tmp_path / "va"), str(tmp_path / "vb")]
    assert build("--top", "0.25", "--by", "lfd,mvcnn", *scores) == 0
    key = json.loads((tmp_path / "out" / "study.json").read_text())
    asked = {f"{q['category']}/{q['sample']}" for q in key["questions"] if q["kind"] == "question"}
    assert asked == {p.with_suffix("").as_posix() for p in names[-3:]}
    assert "averaged" in key["settings"]["top_rule"]


def test_several_pairs_and_a_damaged_reconstruction(build, runs, tmp_path, capsys):
    broken = sorted(Path(runs[1]).rglob("*.obj"))[:6]
    for path in broken:
        path.write_text("v nan 0 0\n")
    assert build("--questions", "9", folders=(*runs, *runs[::-1])) == 0
    noted = capsys.readouterr().err
    assert noted.count("was left out") >= 1
    key = json.loads((tmp_path / "out" / "study.json").read_text())
    real = [q for q in key["questions"] if q["kind"] == "question"]
    assert [sum(q["pair"] == k for q in real) for k in (0, 1)] == [5, 4]
    assert not {q["sample"] for q in real} & {p.stem for p in broken if p.parent.name == "chair"}
    assert [p["a"] for p in key["pairs"]] == list(runs)


def test_points_are_drawn_too(build, runs, tmp_path):
    for path in Path(runs[0]).rglob("*.obj"):
        mesh = trimesh.load(path, process=False)
        trimesh.PointCloud(mesh.sample(500)).export(path.with_suffix(".ply"))
        path.unlink()
    assert build() == 0


def test_a_study_is_not_overwritten(build, tmp_path, one_sentence, capsys):
    assert build() == 0
    first = (tmp_path / "out" / "study.json").read_bytes()
    capsys.readouterr()
    assert build("--seed", "1") == 2
    assert "holds a study" in one_sentence(capsys)
    assert (tmp_path / "out" / "study.json").read_bytes() == first
    assert build("--seed", "1", "--force") == 0
    names = {p.stem for p in (tmp_path / "out" / "hit_images").iterdir()}
    ids = [q["id"] for q in json.loads((tmp_path / "out" / "study.json").read_text())["questions"]]
    assert set(ids) <= names
    assert len(names) == 5 * len(ids)  # none of the first study's are left


def test_own_consent_is_shown_as_text(build, tmp_path):
    (tmp_path / "consent.txt").write_text("Approved <by> nobody.\n\nSecond\nparagraph.\n")
    assert build("--consent", str(tmp_path / "consent.txt")) == 0
    html = (tmp_path / "out" / "study.html").read_text()
    assert "<p>Approved &lt;by&gt; nobody.</p>" in html
    assert "<p>Second paragraph.</p>" in html


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--questions", "40"], "12 are the samples that"),
        (["--top", "0.1"], "2 are the best 10% of the 12 samples"),
        (["--questions", "0"], "--questions is 0"),
        (["--questions", "many"], "invalid int value: 'many'"),
        (["--scores", "x", "y"], "--scores goes with --top"),
        (["--scores", "x", "--top", "1"], "--scores is given 1 times"),
        (["--scores", "x", "y", "z", "w", "--top", "1"], "names 4 folders for 2 runs"),
        (["--image-base", "http://x"], "from https:// addresses only"),
        (["--consent", "nowhere.txt"], "--consent nowhere.txt cannot be read"),
        (["--root", "nowhere"], "The dataset nowhere does not exist here"),
    ],
)
def test_mistakes_are_one_sentence(build, options, said, one_sentence, capsys, tmp_path):
    if "--top" in options and "--scores" not in options:
        for name in ("a", "b"):
            ids = [(p.parent.name, p.stem) for p in (tmp_path / name).rglob("*.obj")]
            text = "category,id,lfd,shape_google,mvcnn\n" + "".join(f"{c},{i},1,2,3\n" for c, i in ids)
            (tmp_path / name / "predictions" / "per_sample_rank0.csv").write_text(text)
    assert build(*options) == 2
    assert said in one_sentence(capsys)
    assert not (tmp_path / "out" / "study.json").exists()


def test_mistakes_in_runs(build, runs, tmp_path, one_sentence, capsys):
    (tmp_path / "empty").mkdir()
    other = tmp_path / "other" / "predictions" / "sofa" / "x.obj"
    other.parent.mkdir(parents=True)
    shutil.copy(next(Path(runs[0]).rglob("*.obj")), other)
    for folders, said in (
        ((runs[0],), "given 1 times; expected pairs"),
        ((runs[0], str(tmp_path / "nowhere")), "nowhere does not exist"),
        ((runs[0], str(tmp_path / "empty")), "has no reconstructions in predictions/"),
        ((runs[0], str(tmp_path / "other")), "have no sample in common"),
        ((runs[0], f"{runs[0]}/../{Path(runs[0]).name}"), "is both A and B of a pair"),
        ((*runs, *runs), "A pair of runs is named twice"),
    ):
        assert build(folders=folders) == 2
        assert said in one_sentence(capsys)
    assert build(root=None) == 2
    assert "names no dataset: say --root" in one_sentence(capsys)
    shutil.move(next(Path(runs[0]).rglob("*.obj")).parent, tmp_path / "away")
    assert build("--questions", "7") == 2  # one category is left
    assert "6 are the samples" in one_sentence(capsys)


def test_runs_of_two_datasets_are_not_compared(build, runs, tmp_path, one_sentence, capsys):
    for run, name in zip(runs, ("one", "two"), strict=True):
        (Path(run) / "config.yaml").write_text(f"data: {{root: {tmp_path / name}}}\n")
    assert build(root=None) == 2
    said = one_sentence(capsys)
    assert f"names the dataset {tmp_path / 'one'}" in said
    assert str(tmp_path / "two") in said
    assert build() == 0  # --root says which


def test_score_prints_the_papers_numbers_beside(build, tmp_path, capsys):
    assert build() == 0
    key = json.loads((tmp_path / "out" / "study.json").read_text())
    answers = [
        {"question": q["id"], "choice": o, "side": "left", "milliseconds": 900}
        for q in key["questions"]
        for o, who in q["options"].items()
        if who in ("b", "good")
    ]
    sheet = {"study": key["study"], "participant": "ann", "finished": "2026", "answers": answers}
    (tmp_path / "ann.json").write_text(json.dumps(sheet))
    (tmp_path / "cut.json").write_text("{")
    capsys.readouterr()
    command = ["study", "score", str(tmp_path / "ann.json"), "--key", str(tmp_path / "out")]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "100.0% (3 of 3), 29.2% to 100.0%" in text  # 0.025 ** (1/3)
    assert "paper, PS-1: 71 % of 4000 votes" in text
    assert "paper, PS-2: 86.075 % of 4000 votes" in text
    assert main([*command[:2], str(tmp_path / "cut.json"), *command[2:], "--json", str(tmp_path / "score.json")]) == 1
    assert "cut.json cannot be read" in capsys.readouterr().err
    assert json.loads((tmp_path / "score.json").read_text())["b_over_a"]["share"] == 1
    assert len(json.loads((tmp_path / "score.json").read_text())["left_out"]["unreadable"]) == 1


def test_score_mistakes(tmp_path, one_sentence, capsys):
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "none").mkdir()
    (tmp_path / "study.json").write_text('{"study": "1", "pairs": [], "questions": []}')
    key = ["--key", str(tmp_path / "study.json")]
    for arguments, said in (
        ([str(tmp_path / "x.json"), "--key", str(tmp_path / "nokey.json")], "nokey.json cannot be read"),
        ([str(tmp_path / "away.json"), *key], "away.json do not exist"),
        ([str(tmp_path / "none"), *key], "has no answers"),
        ([str(tmp_path / "x.json"), *key, "--allow-failed", "-1"], "--allow-failed is -1"),
        ([str(tmp_path / "x.json"), *key], "No participant's votes count"),
        ([str(tmp_path / "x.json")], "required: --key"),
    ):
        assert main(["study", "score", *arguments]) == 2
        assert said in one_sentence(capsys)
