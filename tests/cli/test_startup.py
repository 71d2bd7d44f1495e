"""What a command loads before it answers: start-up time as structure, which a busy machine cannot change."""

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "numpy",
    "scipy",
    "pytorch_lightning",
    "trimesh",
    "numba",
    "matplotlib",
    "PIL",
    "concurrent.futures",
)


def loaded(*arguments: str) -> set[str]:
    """The modules of a process that ran ``reconlab`` with these arguments."""
    command = [sys.executable, "-X", "importtime", "-m", "reconlab.cli.__main__", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip() for line in lines}


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("fti",)])
def test_the_dispatcher_loads_no_library(arguments):
    modules = loaded(*arguments)
    assert "reconlab.errors" in modules
    assert not modules & {*HEAVY, "yaml", "argparse", "importlib.metadata"}


@pytest.mark.parametrize("command", ["predict", "evaluate", "data", "figure", "sweep", "table", "report", "study"])
def test_a_commands_help_loads_no_library(command):
    assert not loaded(command, "--help") & {*HEAVY, "yaml"}


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_a_config_that_is_not_there_is_named_before_anything_is_loaded(command, tmp_path):
    assert not loaded(command, f"--config={tmp_path / 'nowhere.yaml'}") & set(HEAVY)


def test_plans_and_tables_load_no_numbers(repository):
    assert not loaded("sweep", str(repository / "configs/sweeps/drwr_table4.yaml"), "--dry-run") & set(HEAVY[:8])
    assert not loaded("table", "drwr_table4") & set(HEAVY)


def test_a_training_loads_what_it_uses(repository, data, tmp_path):
    """Not what other losses, the loggers or the writers of files would use."""
    configs = [f"--config={repository / 'configs' / name}.yaml" for name in ("atlasnet_chamfer", "profiles/smoke")]
    options = [f"--data.root={data}", "--data.build=never", f"--out={tmp_path}"]
    modules = loaded("fit", *configs, *options)
    assert "reconlab.kernels.nearest.cpu" in modules, "it has trained"
    others = ("wandb", "plotly", "kornia", "skimage", "trimesh", "networkx", "jinja2", "ot", "igl", "IPython", "ray")
    assert not modules & set(others)
    assert "reconlab.kernels.soft_rasterize.cpu" not in modules
