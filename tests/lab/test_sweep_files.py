"""Sweep files: expansion, names, W&B's own rules, and the sweeps that the project ships."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from reconlab.errors import ReconlabError
from reconlab.lab.bases import expand_configs, with_bases
from reconlab.lab.engines import engine_options
from reconlab.lab.sweep import check_options, choose, expand, load_sweep, macros, place_configs, steps_of

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SHIPPED = sorted(p.stem for p in (CONFIGS / "sweeps").glob("*.yaml"))
TABLES_WITHOUT = {"drwr_table2", "drwr_table3", "drkfs_table5"}  # the first two read table 1's cells


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def test_a_grid_is_the_product_of_its_axes(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.yaml", {"x": 1})
    axes = {"config": {"values": ["a.yaml", "b.yaml"]}, "seed_everything": {"values": [0, 3]}}
    axes["data.categories"] = {"values": ["[car]", "[chair, lamp]"]}
    axes["model.lr"] = {"value": 0.1}
    cells = expand(load_sweep(write(tmp_path / "s.yaml", {"method": "grid", "parameters": axes, "program": "p.py"})))
    assert [c.name for c in cells] == [
        f"{row}-seed{seed}-{group}-lr0.1" for row in "ab" for seed in (0, 3) for group in ("car", "chair_lamp")
    ]
    assert (cells[0].row, cells[0].group, cells[0].seed) == ("a.yaml", "car", 0)
    assert cells[-1].parameters == {
        "config": "b.yaml", "seed_everything": 3, "data.categories": "[chair, lamp]", "model.lr": 0.1,
    }  # fmt: skip
    assert cells[0].arguments[-4:] == (
        f"--config={tmp_path}/a.yaml", "--seed_everything=0", "--data.categories=[car]", "--model.lr=0.1",
    )  # fmt: skip


def test_rows_of_one_file_name_are_told_apart(tmp_path):
    for folder in "xy":
        write(tmp_path / folder / "a.yaml", {})
    parameters = {"config": {"values": ["x/a.yaml", "y/a.yaml"]}}
    for folder in "xy":
        write(tmp_path / folder / "a.yaml", "k: 1\n")
    cells = expand(load_sweep(write(tmp_path / "s.yaml", {"method": "grid", "parameters": parameters})))
    assert [c.name for c in cells] == ["x_a", "y_a"]


def test_values_that_look_alike_as_folders_still_have_names_of_their_own(tmp_path):
    parameters = {"title": {"values": ["a b", "a_b"]}}
    cells = expand(load_sweep(write(tmp_path / "s.yaml", {"method": "grid", "parameters": parameters})))
    assert len({c.name for c in cells}) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"method": "bayes", "parameters": {"a": {"values": [1]}}}, ["s.yaml", "bayes", "W&B's server"]),
        ({"method": "random", "parameters": {"a": {"values": [1]}}}, ["random", "grid"]),
        ({"method": "grid"}, ["no parameters"]),
        ({"method": "grid", "parameters": {"a": {"min": 0, "max": 1}}}, ["parameters.a", "values"]),
        ({"method": "grid", "parameters": {"a": {"values": [[1, 2]]}}}, ["parameters.a", "[1, 2]", "text"]),
        ({"method": "grid", "parameters": {"a": {"values": [1, 1]}}}, ["parameters.a", "twice"]),
        ({"method": "grid", "parameters": {"a": {"value": 1}}, "colour": 1}, ["'colour'"]),
        ({"method": "grid", "parameters": {"a": {"value": 1}}, "command": "reconlab"}, ["command", "list"]),
        ("[1]", ["not a mapping"]),
    ],
)
def test_a_file_that_is_no_grid_is_refused_in_a_sentence(content, words, tmp_path):
    with pytest.raises(ReconlabError) as caught:
        load_sweep(write(tmp_path / "s.yaml", content))
    assert all(w in str(caught.value) for w in ("s.yaml", *words)), caught.value


def test_a_missing_config_and_an_unknown_macro_are_named(tmp_path):
    axes = {"parameters": {"config": {"values": ["configs/gone.yaml"]}}, "method": "grid"}
    with pytest.raises(ReconlabError, match=r"s.yaml names the config configs/gone.yaml, which does not exist"):
        expand(load_sweep(write(tmp_path / "s.yaml", axes)))
    axes = {"parameters": {"a": {"value": 1}}, "method": "grid", "command": ["reconlab", "${arks}"]}
    with pytest.raises(ReconlabError, match=r"\$\{arks\}"):
        expand(load_sweep(write(tmp_path / "s.yaml", axes)))


def test_configs_are_found_from_here_first_and_then_above_the_file(tmp_path, monkeypatch):
    write(tmp_path / "home" / "configs" / "a.yaml", "k: 1\n")
    sweep = write(tmp_path / "home" / "configs" / "sweeps" / "s.yaml", "{}")
    monkeypatch.chdir(tmp_path)
    assert place_configs(["--config", "configs/a.yaml"], sweep) == [f"--config={tmp_path}/home/configs/a.yaml"]
    write(tmp_path / "configs" / "a.yaml", "k: 2\n")
    assert place_configs(["--config=configs/a.yaml"], sweep) == ["--config=configs/a.yaml"]


def test_only_chooses_cells(tmp_path):
    axes = {"a": {"values": [1, 2]}, "seed_everything": {"values": [0, 1]}}
    cells = expand(load_sweep(write(tmp_path / "s.yaml", {"method": "grid", "parameters": axes})))
    assert [c.name for c in choose(cells, ["seed=1"])] == ["a1-seed1", "a2-seed1"]
    assert [c.name for c in choose(cells, ["cell=a2*", "seed=0,1"])] == ["a2-seed0", "a2-seed1"]
    for condition, words in {
        "seed=7": "there are 0, 1",
        "colour=red": "none of row=",
        "seed": "none of row=",
    }.items():
        with pytest.raises(ReconlabError, match=words):
            choose(cells, [condition])
    with pytest.raises(ReconlabError, match="no cell has all"):
        choose(cells, ["cell=a1*", "cell=a2*"])


def test_the_last_word_on_the_steps_counts(tmp_path):
    base = write(tmp_path / "base.yaml", {"trainer": {"max_steps": 5}})
    over = write(tmp_path / "over.yaml", {"base": "base.yaml", "trainer": {"val_check_interval": 2}})
    assert steps_of([f"--config={over}"]) == 5
    assert steps_of([f"--config={over}", "--trainer.max_steps=9"]) == 9
    assert steps_of(["--trainer.max_steps=9", f"--config={base}"]) == 5
    assert steps_of([f"--config={base}", "--trainer.max_steps=-1"]) is None


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_sweeps_run_as_wandbs_agent_would(name):
    # W&B checks sweeps on its server; what can be checked here is what its documentation allows and its agent does.
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    file = CONFIGS / "sweeps" / f"{name}.yaml"
    content = utils.load_sweep_config(str(file))
    assert set(content) <= {"name", "description", "method", "command", "parameters", "metric", "program", "project"}
    assert content["method"] == "grid"
    for entry in content["parameters"].values():
        assert set(entry) == {"values"}
        assert all(isinstance(v, str | int | float | bool) for v in entry["values"])
    sweep = load_sweep(file)
    for cell in expand(sweep):
        arguments = {"args": {key: {"value": value} for key, value in cell.parameters.items()}}
        variables = utils.create_sweep_command_args(arguments) | {"env": ["/usr/bin/env"]}
        words = []
        for word in utils.create_sweep_command(list(content["command"])):
            words += variables[word[2:-1]] if word.startswith("${") else [word]
        ours = ["/usr/bin/env", "reconlab", *macros(sweep, cell.parameters)[3:]]
        assert words == ours
        assert "--test_after_fit=true" in words


def test_macros_are_wandbs_own(tmp_path):
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    parameters = {"a": 1, "flag": True, "off": False, "text": "[x, y]"}
    theirs = utils.create_sweep_command_args({"args": {k: {"value": v} for k, v in parameters.items()}})
    axes = {k: {"values": [v]} for k, v in parameters.items()}
    for macro in ("args", "args_no_hyphens", "args_no_equals", "args_no_boolean_flags"):
        content = {"method": "grid", "parameters": axes, "command": ["x", f"${{{macro}}}"]}
        sweep = load_sweep(write(tmp_path / "s.yaml", content))
        assert macros(sweep, parameters) == ["x", *theirs[macro]], macro


def test_every_table_has_its_sweep():
    tables = {p.stem for p in (CONFIGS / "tables").glob("*.yaml")}
    assert tables - TABLES_WITHOUT == set(SHIPPED)


# base: in a config


def test_bases_come_before_the_file_and_before_them_theirs(tmp_path):
    write(tmp_path / "root.yaml", "a: 1\n")
    write(tmp_path / "x" / "one.yaml", {"base": "../root.yaml"})
    write(tmp_path / "two.yaml", {"base": ["root.yaml", "x/one.yaml"]})
    top = write(tmp_path / "y" / "top.yaml", {"base": ["../x/one.yaml", "../two.yaml"]})
    found = [Path(f).resolve().relative_to(tmp_path).as_posix() for f in with_bases(top)]
    assert found == ["root.yaml", "x/one.yaml", "two.yaml", "y/top.yaml"]
    assert expand_configs(["--a", "-c", str(top), "--b=1"])[-2:] == [f"--config={top}", "--b=1"]


def test_circles_and_gaps_name_both_files(tmp_path):
    write(tmp_path / "a.yaml", {"base": "b.yaml"})
    write(tmp_path / "b.yaml", {"base": "a.yaml"})
    with pytest.raises(ReconlabError, match=r"(?s)b.yaml and .*a.yaml are bases of one another"):
        with_bases(tmp_path / "a.yaml")
    write(tmp_path / "self.yaml", {"base": "self.yaml"})
    with pytest.raises(ReconlabError, match=r"self.yaml and .*self.yaml are bases"):
        with_bases(tmp_path / "self.yaml")
    write(tmp_path / "c.yaml", {"base": "gone.yaml"})
    with pytest.raises(ReconlabError, match=r"gone.yaml, the base of .*c.yaml, cannot be read"):
        with_bases(tmp_path / "c.yaml")
    write(tmp_path / "d.yaml", {"base": 3})
    with pytest.raises(ReconlabError, match=r"d.yaml is 3: name a file"):
        with_bases(tmp_path / "d.yaml")
    with pytest.raises(ReconlabError, match="several --config"):
        expand_configs(["--base=x.yaml"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name: 2024-13-45\nmethod: grid\n", "not valid YAML"),
        ("name: ..\nmethod: grid\nparameters: {x: {value: 1}}\n", "no folder's"),
        ("name: a\n1: 2\nb: 3\n", "the key '1'"),
        ("[" * 5000, "not valid YAML"),
    ],
)
def test_strange_sweep_files_are_refused_in_a_sentence(tmp_path, content, said):
    with pytest.raises(ReconlabError, match=said):
        load_sweep(write(tmp_path / "s.yaml", content))


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--seed_everything=5", "sets seed_everything"),
        ("--data.categories=[car]", "sets data.categories"),
        ("--config={}/saved.yaml", "sets seed_everything"),
        ("--config={}/over.yaml", "sets data.categories"),
        ("--out=elsewhere", "places its cells' runs itself"),
        ("--name=mine", "places its cells' runs itself"),
    ],
)
def test_options_that_would_belie_the_cells_are_refused(tmp_path, option, said):
    write(tmp_path / "saved.yaml", {"seed_everything": 3})
    write(tmp_path / "base.yaml", {"data": {"categories": ["car"]}})
    write(tmp_path / "over.yaml", {"base": "base.yaml", "model": {"lr": 0.1}})
    write(tmp_path / "harmless.yaml", {"data": {"categories": None, "root": "x"}})
    axes = {"seed_everything": {"values": [0, 1]}, "data.categories": {"values": ["[car]", "[chair]"]}}
    sweep = load_sweep(write(tmp_path / "s.yaml", {"method": "grid", "parameters": axes}))
    cells = expand(sweep)
    harmless = (f"--config={tmp_path}/harmless.yaml", "--data.root=x", "--seed_everything_else=1")
    check_options(sweep, [replace(c, options=harmless) for c in cells])
    with pytest.raises(ReconlabError, match=said):
        check_options(sweep, [*cells[:-1], replace(cells[-1], options=(*harmless, option.format(tmp_path)))])


def test_unreadable_values_of_options_are_no_tracebacks():
    assert steps_of(["--trainer.max_steps=["]) is None
    with pytest.raises(ReconlabError, match=r"--slurm.partition=\[ cannot be read"):
        engine_options("submitit", ["--slurm.partition=["])
