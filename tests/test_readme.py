"""What README says can be typed, can be typed."""

import re
import shlex
import shutil

import pytest
from PIL import Image

from reconlab.cli.__main__ import main


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def commands(text: str) -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks(text, "bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("reconlab ")]


def test_quick_start_is_two_commands(repository):
    readme = (repository / "README.md").read_text()
    section = readme.split("## Quick start")[1].split("\n## ")[0]
    lines = [x for x in blocks(section, "bash")[0].splitlines() if x and not x.startswith("#")]
    assert len(lines) == 2
    assert all("-c constraints.txt" in line for line in lines)
    assert lines[0].endswith("reconlab fit --config configs/atlasnet_drkfs.yaml")


def test_python_example_runs(repository):
    for code in blocks((repository / "README.md").read_text(), "python"):
        scope: dict = {}
        exec(code, scope)
        assert scope["vertices"].grad.abs().sum() > 0
        assert scope["images"].shaded.shape == (1, 25, 64, 64)


def test_commands_run(repository, data, trained, tmp_path, monkeypatch):
    photo = tmp_path / "photo.png"
    Image.open(next(data.glob("chair/*/views/000.png"))).save(photo)
    meshes = tmp_path / "my_meshes" / "box"
    meshes.mkdir(parents=True)
    for i in range(3):
        (meshes / f"{i}.off").write_text(
            f"OFF\n4 4 0\n0 0 0\n1 0 0\n0 {i + 1} 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n"
        )
    shutil.copytree(tmp_path / "my_meshes", tmp_path / "my_predictions")
    monkeypatch.chdir(repository)
    smoke = f"--config configs/profiles/smoke.yaml --data.root={data} --data.build=never --out={tmp_path}/runs"
    small = "--views 1 --image_size 32 --points 100 --queries 100"
    found = commands((repository / "README.md").read_text())
    assert len(found) >= 10
    for command in found:
        if command.startswith("reconlab fit"):
            command = f"{command} {smoke}"
        if "profiles/gpu.yaml" in command:
            command += " --data.num_workers=0 --data.cache=null"  # the data are other tests', too
        if command.startswith("reconlab bench"):
            command = command.replace("--out bench", f"--out {tmp_path}/bench --only nearest")
        command = re.sub(r"runs/atlasnet_\w+/000/checkpoints", str(trained / "checkpoints"), command)
        ours = r"(?<!\S)(photo\.png|fig[56]\.png|my_meshes|my_predictions|runs/mine|mine\.html|data/more|data/mine)"
        command = re.sub(ours, rf"{tmp_path}/\1", command)
        command = command.replace("--out meshes", f"--out {tmp_path}/meshes").replace(
            "--count 200", f"--count 2 {small}"
        )
        command = command.replace("--out data/mine", small)
        command = command.replace("--count 4", "--count 1")
        if command.startswith("reconlab test"):
            command += f" --out={tmp_path}/runs"
        if "devices=2" in command:
            continue  # tests/cli/test_runs.py runs two processes
        assert main(shlex.split(command)[1:]) == 0, command
    assert (tmp_path / "meshes" / "photo.obj").is_file()


def test_the_summary_of_the_tables_is_the_commands_own(repository, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    text = (repository / "README.md").read_text()
    shown = text.split("<!-- reconlab table all --format md -->\n")[1].split("<!-- end of the tables -->")[0]
    assert main(["table", "all", "--format", "md"]) == 0
    assert shown == capsys.readouterr().out


def test_every_stored_table_is_printed_as_it_is_measured(repository, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    for file in sorted((repository / "results" / "tables").glob("*.md")):
        assert main(["table", file.stem, "--format", "md"]) == 0
        assert capsys.readouterr().out == file.read_text(), f"run python results/tables.py: {file.name} is old"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(repository, page):
    for target in re.findall(r"\]\(([^)#]+)\)", (repository / page).read_text()):
        assert (repository / target).exists(), target
