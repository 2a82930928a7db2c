"""CUDA sources built with g++ and run on the CPU, one thread after another."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SHIM = Path(__file__).parents[1] / "kernels" / "cuda_on_cpu"
COMPILER = shutil.which("g++")
SIGNATURE = re.compile(r'extern "C" __global__ void (\w+)\s*\(([^)]*)\)')

Launch = Callable[[str, tuple[Sequence[int], Sequence[int], Sequence[Any]]], None]


def build(source: str, name: str, folder: Path) -> Launch:
    """Return the launcher of a source's kernels: name, (grid, block, arguments).

    Arguments are given as they would be to CuPy: arrays, np.int32 and np.float32.
    """
    assert COMPILER is not None
    entries = "".join(_entry(*found) for found in SIGNATURE.findall(source))
    code, library = folder / f"{name}.cpp", folder / f"{name}.so"
    code.write_text(f'#include "cuda_on_cpu.h"\n#line 1 "{name}.cu"\n{source}\n{entries}')
    options = ["-O2", "-std=c++17", "-shared", "-fPIC", "-Wno-unknown-pragmas"]
    subprocess.run([COMPILER, *options, f"-I{SHIM}", code, "-o", library], check=True)
    functions = ctypes.CDLL(str(library))

    def launch(kernel: str, how: tuple[Sequence[int], Sequence[int], Sequence[Any]]) -> None:
        grid, block, values = how
        sizes = [(ctypes.c_uint * 3)(*size) for size in (grid, block)]
        getattr(functions, f"on_cpu_{kernel}")(*sizes, *map(_argument, values))

    return launch


def _entry(name: str, parameters: str) -> str:
    """Return a C function that launches the kernel `name` over a grid."""
    names = ", ".join(re.findall(r"(\w+)\s*(?:,|$)", parameters))
    return (
        f'extern "C" void on_cpu_{name}(const unsigned* grid, const unsigned* block, {parameters})'
        f"{{ launch(grid, block, {name}, {names}); }}\n"
    )


def _argument(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        assert value.flags.c_contiguous
        return ctypes.c_void_p(value.ctypes.data)
    kinds = {"int32": ctypes.c_int, "int64": ctypes.c_longlong, "float32": ctypes.c_float}
    return kinds[np.dtype(value.dtype).name](value.item())
