"""What Triton needs of a machine before it can launch a kernel, and how reconlab sees to it by wheels alone.

Kernels themselves are assembled by programs inside triton's wheel. But once per installation Triton builds a small C
module that talks to the driver, and for that it wants ``gcc`` or ``clang``. Where there is neither, the C compiler of
the ``ziglang`` wheel (``pip install 'reconlab[gpu]'``) takes their place; where nothing does, operators run in torch.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

LEAST_CAPABILITY = (8, 0)
"""Of the GPUs that the tests compile the kernels for; older ones take the reference unless asked otherwise."""


class NoTritonWarning(UserWarning):
    """A GPU is there, but Triton cannot use it: operators run in plain torch."""


@functools.cache
def has_triton() -> bool:
    """Whether triton is installed."""
    return importlib.util.find_spec("triton") is not None


def interpreting() -> bool:
    """Whether Triton's interpreter is on: kernels then take CPU tensors, slowly."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def lacking() -> str | None:
    """What is missing for kernels to be launched on this machine's GPU, with its remedy; None if nothing is.

    Found out once: looking through the file system at every call would take longer than many a kernel.
    """
    if not has_triton():
        return "triton is not installed: pip install 'reconlab[gpu]'"
    headers = Path(_include()) / "Python.h"
    if not headers.is_file():
        return f"Triton needs Python's headers, and {headers} does not exist: install python3-dev or its like"
    if not _has_compiler() and importlib.util.find_spec("ziglang") is None:
        return "Triton needs a C compiler once, and there is none: pip install ziglang, or install gcc"
    return None


def _include() -> str:
    """Where Triton looks for Python's headers: Debian's own scheme names a folder that its packages leave empty."""
    scheme = sysconfig.get_default_scheme()
    return sysconfig.get_paths("posix_prefix" if scheme == "posix_local" else scheme)["include"]


def _has_compiler() -> bool:
    return bool(os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang"))


@functools.cache
def ready(capability: tuple[int, int]) -> bool:
    """Whether ``auto`` takes the kernels on a GPU of this compute capability; warns once where it does not.

    Sees to the compiler too, so ask before the first launch.
    """
    if torch.version.hip is not None or capability < LEAST_CAPABILITY:
        return False  # kernels that nobody has compiled for it
    missing = lacking()
    if missing is not None:
        warnings.warn(f"Slow: {missing}. Until then torch takes the kernels' place.", NoTritonWarning, stacklevel=4)
        return False
    provide_compiler()
    return True


@functools.cache
def provide_compiler() -> None:
    """Let Triton build by ziglang's compiler, if the machine has none."""
    if _has_compiler() or importlib.util.find_spec("ziglang") is None:
        return
    from triton import knobs

    if knobs.build.impl is None:
        knobs.build.impl = build_by_zig


def build_by_zig(
    name: str,
    source: str,
    folder: str,
    library_folders: Sequence[str],
    include_folders: Sequence[str | None],
    libraries: Sequence[str],
    *_: object,
) -> str:
    """Compile a C module; the arguments are those of Triton's hook ``knobs.build.impl``.

    Returns:
        The path of the module.

    Raises:
        subprocess.CalledProcessError: The compiler refuses it.
    """
    module = Path(folder) / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    command = [sys.executable, "-m", "ziglang", "cc", source, "-O3", "-shared", "-fPIC", "-w", "-o", str(module)]
    headers = [*include_folders, folder, _include()]
    command += [f"-I{h}" for h in headers if h is not None]
    command += [f"-L{f}" for f in library_folders]
    command += [f"-l:{x}" if ".so" in x or x.endswith(".a") else f"-l{x}" for x in libraries]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    return str(module)
