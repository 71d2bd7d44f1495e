"""Compile every Triton kernel for GPUs that need not be there, and say what each one takes of them.

Triton's wheel brings NVIDIA's assembler, so that any Linux machine can compile a kernel down to machine code:
``python -m reconlab.kernels.compile --arch 80 90``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reconlab.kernels.gpu import Example
from reconlab.kernels.triton_setup import has_triton, interpreting

OPERATORS = (
    "soft_rasterize",
    "zbuffer",
    "nearest",
    "pairwise",
    "splat",
    "patch_matching",
    "piecewise_linear",
)
"""Folders of ``kernels/`` that have a ``cuda.py``."""


def examples(operators: Sequence[str] = OPERATORS) -> dict[str, list[Example]]:
    """The compilations to check, by operator."""
    return {name: list(importlib.import_module(f"reconlab.kernels.{name}.cuda").EXAMPLES) for name in operators}


def resources(example: Example, arch: int) -> dict[str, Any]:
    """Compile one example for compute capability ``arch`` (80, 90, …).

    Returns:
        ``registers`` a thread, ``spilled`` bytes of local memory a thread (0: nothing spills), ``shared`` bytes of
        shared memory a program, ``seconds`` the compilation took.

    Raises:
        triton.CompilationError: The kernel does not compile.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    began = time.monotonic()
    types = {name: example.types.get(name, "constexpr") for name in example.kernel.arg_names}
    by_16 = [i for i, (name, kind) in enumerate(types.items()) if kind.startswith("*") or name in example.divisible]
    hints = {(i,): [["tt.divisibility", 16]] for i in by_16}
    source = ASTSource(fn=example.kernel, signature=types, constexprs=dict(example.constants), attrs=hints)
    built = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": example.warps})
    seconds = time.monotonic() - began
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(built.asm["cubin"])
        tool = triton.knobs.nvidia.cuobjdump.path
        said = subprocess.run([tool, "-res-usage", str(cubin)], capture_output=True, text=True, check=True).stdout  # noqa: S603
    found = {k: int(v) for k, v in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", said)}
    return {
        "registers": found["REG"],
        "spilled": found["LOCAL"] + found["STACK"],
        "shared": int(built.metadata.shared),
        "seconds": round(seconds, 2),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line a kernel; returns 1 if one does not compile."""
    parser = argparse.ArgumentParser(prog="python -m reconlab.kernels.compile", description=__doc__)
    parser.add_argument("--arch", type=int, nargs="+", default=[80, 90], help="compute capabilities (default 80 90)")
    parser.add_argument("--only", choices=OPERATORS, nargs="+", help="some of the operators")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(argv)
    if not has_triton() or interpreting():
        sys.stderr.write("This needs triton, without TRITON_INTERPRET.\n")
        return 2
    rows, failed = [], False
    for name, list_of in examples(options.only or OPERATORS).items():
        for example in list_of:
            for arch in options.arch:
                row: dict[str, Any] = {"operator": name, "kernel": example.kernel.__name__, "label": example.label}
                row |= {"arch": arch, "warps": example.warps}
                try:
                    row |= resources(example, arch)
                except Exception as error:  # whatever the compiler raises: the next kernel is still worth a look
                    row["error"] = " ".join(str(error).split())[-300:]
                    failed = True
                rows.append(row)
                if not options.json:
                    sys.stdout.write(_line(row) + "\n")
                    sys.stdout.flush()
    if options.json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    return 1 if failed else 0


def _line(row: dict[str, Any]) -> str:
    name = f"{row['operator']:<18}{row['kernel']:<26}{row['label']:<14}sm_{row['arch']}"
    if "error" in row:
        return f"{name}  does not compile: {row['error']}"
    return (
        f"{name}  {row['registers']:>3} registers  {row['spilled']:>4} B spilled  {row['shared']:>6} B shared  "
        f"{row['seconds']:>6.2f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
