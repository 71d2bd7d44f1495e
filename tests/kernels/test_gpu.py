"""Which path an operator takes, what Triton needs for it, and whether all kernels compile for GPUs not here."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from reconlab.errors import ReconlabError
from reconlab.kernels import gpu, triton_setup
from reconlab.kernels.gpu import choose_backend
from reconlab.kernels.triton_setup import NoTritonWarning


def tensor(device: str, dtype: torch.dtype = torch.float32) -> SimpleNamespace:
    """What a choice looks at: here are no GPUs to put tensors on."""
    return SimpleNamespace(device=torch.device(device), dtype=dtype)


@pytest.fixture
def card(monkeypatch):
    """A GPU of compute capability 9.0, as far as choices go."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(triton_setup, "lacking", lambda: None)
    monkeypatch.setattr(gpu, "lacking", lambda: None)
    monkeypatch.setattr(triton_setup, "provide_compiler", lambda: None)
    triton_setup.ready.cache_clear()
    yield
    triton_setup.ready.cache_clear()


def test_auto_takes_the_fast_path_of_the_device(card) -> None:
    assert choose_backend("f", "auto", tensor("cpu")) == "cpu"
    assert choose_backend("f", "auto", tensor("cpu"), cpu=False) == "reference"
    assert choose_backend("f", "auto", tensor("cpu", torch.float64)) == "reference"
    assert choose_backend("f", "auto", tensor("cuda"), tensor("cuda")) == "cuda"
    assert choose_backend("f", "auto", tensor("cuda", torch.float64)) == "reference"
    assert choose_backend("f", "auto", tensor("cuda"), tensor("cpu")) == "reference"
    assert choose_backend("f", "auto", tensor("cuda:0"), tensor("cuda:1")) == "reference"  # which says what is wrong
    with pytest.raises(ReconlabError, match=r"backend='cuda'\) takes float32 tensors on one GPU"):
        choose_backend("f", "cuda", tensor("cuda:0"), tensor("cuda:1"))
    assert choose_backend("f", "reference", tensor("cuda")) == "reference"
    assert choose_backend("f", "cuda", tensor("cuda")) == "cuda"


def test_old_and_other_gpus_take_the_reference(card, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert choose_backend("f", "auto", tensor("cuda")) == "reference"
    assert choose_backend("f", "cuda", tensor("cuda")) == "cuda", "at the user's own wish"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 4))
    monkeypatch.setattr(torch.version, "hip", "6.0")
    assert choose_backend("f", "auto", tensor("cuda")) == "reference"


def test_what_triton_lacks_is_said_once_and_torch_steps_in(card, monkeypatch) -> None:
    for module in (gpu, triton_setup):
        monkeypatch.setattr(module, "lacking", lambda: "there is no C compiler")
    with pytest.warns(NoTritonWarning, match="there is no C compiler"):
        assert choose_backend("f", "auto", tensor("cuda")) == "reference"
    assert (
        choose_backend("f", "auto", tensor("cuda")) == "reference"
    )  # without a second warning, which would be an error
    with pytest.raises(ReconlabError, match=r"f\(backend='cuda'\) cannot run: there is no C compiler\."):
        choose_backend("f", "cuda", tensor("cuda"))


def test_what_is_lacking_is_found(monkeypatch, tmp_path) -> None:
    found = {"triton": True, "ziglang": False}
    monkeypatch.setattr(triton_setup, "has_triton", lambda: found["triton"])
    monkeypatch.setattr(triton_setup.importlib.util, "find_spec", lambda name: object() if found[name] else None)
    monkeypatch.setattr(triton_setup.sysconfig, "get_paths", lambda scheme: {"include": str(tmp_path / scheme)})
    monkeypatch.setattr(triton_setup.sysconfig, "get_default_scheme", lambda: "posix_local")  # Debian's, without any
    monkeypatch.setattr(triton_setup.shutil, "which", lambda name: None)
    monkeypatch.delenv("CC", raising=False)
    lacking = triton_setup.lacking.__wrapped__  # which is asked only once
    assert "headers" in str(lacking())
    (tmp_path / "posix_prefix").mkdir()
    (tmp_path / "posix_prefix" / "Python.h").touch()
    assert "pip install ziglang" in str(lacking())
    found["ziglang"] = True
    assert lacking() is None
    found["ziglang"] = False
    monkeypatch.setenv("CC", "mycc")
    assert lacking() is None
    found["triton"] = False
    assert "reconlab[gpu]" in str(lacking())


def test_backends_that_do_not_fit_are_named() -> None:
    with pytest.raises(ReconlabError, match=r"f\(\) has the backends auto, reference, cpu, cuda, not 'gpu'"):
        choose_backend("f", "gpu", torch.zeros(1))
    with pytest.raises(ReconlabError, match=r"backend='cpu'\) takes float32 tensors on the CPU"):
        choose_backend("f", "cpu", torch.zeros(1).double())
    with pytest.raises(ReconlabError, match=r"backend='cuda'\) takes float32 tensors on one GPU"):
        choose_backend("f", "cuda", torch.zeros(1).double())


C_MODULE = """
#define PY_SSIZE_T_CLEAN
#include <Python.h>
static PyObject *answer(PyObject *self, PyObject *none) { return PyLong_FromLong(42); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, ""}, {0}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "probe", 0, -1, methods};
PyMODINIT_FUNC PyInit_probe(void) { return PyModule_Create(&definition); }
"""
BUILD = """
import sys
from pathlib import Path
from reconlab.kernels.triton_setup import provide_compiler
provide_compiler()
from triton.runtime.build import compile_module_from_src
print(compile_module_from_src(Path(sys.argv[1]).read_text(), "probe").answer())
"""


@pytest.mark.slow  # of the extra gpu, which CI installs for the slow proofs
def test_a_wheel_takes_the_place_of_a_compiler(tmp_path) -> None:
    pytest.importorskip("triton")
    pytest.importorskip("ziglang", reason="the extra gpu is not installed")
    source = tmp_path / "probe.c"
    source.write_text(C_MODULE)
    bare = {k: v for k, v in os.environ.items() if k != "CC"}
    bare |= {"PATH": str(tmp_path), "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    assert shutil.which("gcc", path=bare["PATH"]) is None
    done = subprocess.run(
        [sys.executable, "-c", BUILD, source], env=bare, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "42", done.stderr


@pytest.mark.parametrize("arch", [90, pytest.param(80, marks=pytest.mark.slow)])
def test_every_kernel_compiles_and_nothing_spills(arch: int) -> None:
    pytest.importorskip("triton")
    from reconlab.kernels.compile import OPERATORS

    plain = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "reconlab.kernels.compile", "--arch", str(arch), "--json"]
    done = subprocess.run(command, env=plain, capture_output=True, text=True, check=False)
    rows = json.loads(done.stdout)
    assert {r["operator"] for r in rows} == set(OPERATORS)
    assert [r for r in rows if "error" in r] == []
    assert done.returncode == 0, done.stderr
    assert [r for r in rows if r["spilled"]] == []
    # Beyond 168 registers a thread, fewer than twelve warps have room on a multiprocessor.
    assert max(r["registers"] for r in rows) <= 168
