"""The cache of the numba kernels, and the line that says when one is compiled."""

import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

from reconlab.kernels import jit

KERNEL = """
from reconlab.kernels.jit import njit

@njit(nogil=True, cache=True)
def one():
    return 1

@njit("int64(int64)", nogil=True, cache=True)
def more(n):
    return n + one()
"""
# Loads it as one of reconlab's, with nothing as heavy as torch
CALL = """
import importlib.util
import sys
spec = importlib.util.spec_from_file_location("reconlab.kernels.counting.cpu", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)
print(module.more(41), module.one())
"""
LINE = "reconlab: compiling counting for this machine"


@pytest.fixture
def start(tmp_path):
    """A function that starts a process which uses a kernel, in a given environment."""
    file = tmp_path / "counting" / "cpu.py"
    file.parent.mkdir()
    file.write_text(KERNEL)
    kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "LOCAL_RANK")}

    def of(**environment: str) -> subprocess.Popen:
        command = [sys.executable, "-c", CALL, str(file)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=kept | environment, stdout=pipe, stderr=pipe, text=True)

    return of


def test_one_line_when_it_compiles_and_none_from_the_cache(start, tmp_path):
    """Two processes at once fill an empty cache; a third one is silent."""
    folder = tmp_path / "own"
    both = [start(NUMBA_CACHE_DIR=str(folder)) for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert out == "42 1\n"
        assert err in ("", f"{LINE} (once, some seconds)\n")  # the slower of the two may find it in the cache
    assert next(folder.glob("counting-*/*/*.nbc"))
    out, err = start(NUMBA_CACHE_DIR=str(folder)).communicate(timeout=120)
    assert (out, err) == ("42 1\n", "")


def test_a_cache_that_cannot_be_written(start, tmp_path):
    """The user's folder is no folder: the cache of the user is taken, and without that none at all."""
    (tmp_path / "file").touch()
    nowhere = str(tmp_path / "file" / "below")
    cached = start(NUMBA_CACHE_DIR=nowhere, XDG_CACHE_HOME=str(tmp_path))
    bare = start(NUMBA_CACHE_DIR=nowhere, XDG_CACHE_HOME=nowhere)
    out, err = cached.communicate(timeout=120)
    assert (out, err) == ("42 1\n", f"{LINE} (once, some seconds)\n")
    assert next((tmp_path / "reconlab" / "numba").glob("counting-*/*/*.nbc"))
    out, err = bare.communicate(timeout=120)
    assert (out, err) == ("42 1\n", f"{LINE} (no cache folder can be written: set NUMBA_CACHE_DIR)\n")


@pytest.fixture
def version(tmp_path, monkeypatch):
    """A function that writes two modules and gives the version of the first, which imports from the second."""

    def of(caller: str, helper: str) -> str:
        for name, text in (("caller", caller), ("helper", helper)):
            module = ModuleType(f"reconlab.kernels.{name}")
            module.__file__ = str(tmp_path / f"{name}.py")
            (tmp_path / f"{name}.py").write_text(text)
            monkeypatch.setitem(sys.modules, module.__name__, module)
        return jit._version.__wrapped__("reconlab.kernels.caller")

    return of


def test_a_change_of_a_helper_in_another_file_is_another_version(version):
    caller = "from reconlab.kernels.helper import (\n    double,\n)\n"
    first = version(caller, "TWO = 2\n")
    assert version(caller, "TWO = 2\n") == first
    assert version(caller, "TWO = 3\n") != first
    assert version(caller + "#\n", "TWO = 2\n") != first
    alone = version("import math\n", "TWO = 2\n")
    assert version("import math\n", "TWO = 3\n") == alone, "it does not import the helper"
    circle = "from reconlab.kernels.caller import x\n"
    assert version(caller, circle) != first, "and two files may import each other"


def test_only_the_first_process_speaks(monkeypatch):
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jit, "parent_process", lambda: None)
    assert jit._speaks()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not jit._speaks()
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(jit, "parent_process", lambda: "parent")
    for name, speaks in (("Process-1", True), ("Process-2", False), ("SpawnProcess-11", False)):
        monkeypatch.setattr(jit, "current_process", lambda name=name: SimpleNamespace(name=name))
        assert jit._speaks() is speaks
