"""The commands that must answer without loading torch."""

import inspect
import subprocess
import sys

import pytest

from reconlab import __version__
from reconlab.cli.__main__ import COMMANDS, main
from reconlab.cli.listing import subclasses

PROBE = """
import sys
from reconlab.cli.__main__ import main
try:
    status = main(sys.argv[1:])
except SystemExit as stop:
    status = stop.code
heavy = [m for m in ("torch", "numpy", "pytorch_lightning", "numba") if m in sys.modules]
print("HEAVY", heavy)
sys.exit(status)
"""


def ask(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        ((), 0, "usage: reconlab COMMAND"),
        (("--help",), 0, "usage: reconlab COMMAND"),
        (("--version",), 0, f"reconlab {__version__}"),
        (("fti",), 2, "did you mean 'fit'?"),
        (("list", "networks"), 0, "AtlasNet "),
        (("list", "--help"), 0, "usage: reconlab list"),
        (("list", "netwroks"), 2, "invalid choice: 'netwroks'"),
        (("predict", "--help"), 0, "--ckpt_path"),
        (("predict",), 2, "reconlab: predict: the following arguments are required"),
        (("data", "biuld"), 2, "reconlab: data: argument command: invalid choice: 'biuld'"),
        (("data", "check", "x", "--froce"), 2, "reconlab: data: unrecognized arguments: --froce"),
        (("data", "build", "--help"), 0, "--source"),
        (("figure", "--help"), 0, "drwr-fig5"),
        (("evaluate", "--help"), 0, "--normalize"),
        (("figure", "drwr-fig4", "--out=x.png"), 2, "did you mean 'drwr-fig"),
    ],
)
def test_light_commands(arguments, status, text):
    done = ask(*arguments)
    assert done.returncode == status, done.stderr
    assert text in done.stdout + done.stderr
    assert "HEAVY []" in done.stdout


def test_help_names_every_command():
    done = ask("--help")
    assert all(f"\n  {name}" in done.stdout for name in COMMANDS)


def test_lists_agree_with_the_classes():
    import reconlab.losses
    import reconlab.metrics
    import reconlab.networks

    for room, base in (("networks", "Network"), ("losses", "Loss"), ("metrics", "Metric")):
        module = getattr(reconlab, room)
        parent = getattr(module, base)
        classes = [getattr(module, n) for n in module.__all__ if isinstance(getattr(module, n), type)]
        concrete = {c.__name__ for c in classes if issubclass(c, parent) and not inspect.isabstract(c)}
        assert concrete == set(subclasses(room)), room
        assert all(sentence for sentence in subclasses(room).values()), "every class has a docstring"


def test_unknown_command_in_process(capsys):
    assert main(["frobnicate"]) == 2
    assert "choose from fit, validate" in capsys.readouterr().err
