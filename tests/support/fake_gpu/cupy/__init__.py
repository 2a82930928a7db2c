"""A CuPy without a GPU: arrays that are none of NumPy's, and kernels run by g++'s shim.

Found by workers whose path has this folder. As with CuPy, NumPy and its operators refuse its
arrays, and it refuses NumPy's, so that a forgotten transfer shows. The variable FAKE_GPU names a
folder, in which a file for each kernel and transform has a line for each use, the process;
FAKE_GPU_BROKEN makes the device fail.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from cuda_on_cpu import build

FOLDER = Path(os.environ.get("FAKE_GPU", "/nonexistent"))
MEMORY = 4_000_000_000
_DEVICE = SimpleNamespace(id=0)


class ndarray:
    """An array that only this module can read."""

    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]
    device = _DEVICE

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed: use .get()")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self._values, name)
        return _wrapped(found) if callable(found) else _in(found)

    def get(self) -> np.ndarray:
        return self._values.copy()

    def __getitem__(self, key: Any) -> Any:
        return _in(self._values[_out(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._values[_out(key)] = _out(value)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self._values)))

    def __array_namespace__(self, **_: Any) -> Any:
        return sys.modules[__name__]


def _in(value: Any) -> Any:
    """Return a result as arrays of the device."""
    if isinstance(value, np.ndarray | np.generic) and not isinstance(value, np.dtype):
        return ndarray(np.asarray(value))
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(_in(one) for one in value)
    if isinstance(value, list):
        return [_in(one) for one in value]
    return value


def _out(value: Any) -> Any:
    """Return an argument as NumPy takes it; arrays of the host are refused."""
    if isinstance(value, ndarray):
        return value._values
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, tuple | list):
        return type(value)(_out(one) for one in value)
    return value


def _wrapped(function: Any) -> Any:
    def call(*arguments: Any, **named: Any) -> Any:
        named.pop("device", None)
        return _in(function(*map(_out, arguments), **{k: _out(v) for k, v in named.items()}))

    return call


def _operator(name: str) -> Any:
    def operate(self: ndarray, *others: Any) -> Any:
        found = getattr(self._values, name)(*map(_out, others))
        if name.startswith("__i") and name not in ("__invert__", "__int__", "__index__"):
            return self
        return NotImplemented if found is NotImplemented else _in(found)

    return operate


_TWO = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"]
_TWO += ["and", "or", "xor", "lshift", "rshift"]
for _name in [*_TWO, *(f"r{n}" for n in _TWO), *(f"i{n}" for n in _TWO)]:
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))
for _name in ["eq", "ne", "lt", "le", "gt", "ge", "neg", "pos", "abs", "invert"]:
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))
for _kind in (bool, int, float, complex, len):
    setattr(ndarray, f"__{_kind.__name__}__", lambda self, kind=_kind: kind(self._values))
ndarray.__index__ = lambda self: self._values.__index__()  # type: ignore[attr-defined]


def asarray(values: Any, dtype: Any = None, *, device: Any = None, copy: Any = None) -> ndarray:
    """Copy to the device."""
    held = values._values if isinstance(values, ndarray) else np.array(values)
    return ndarray(np.array(held, dtype=dtype or held.dtype, copy=True if copy else None))


array = asarray


def asnumpy(values: Any) -> np.ndarray:
    """Copy to the host."""
    return values.get() if isinstance(values, ndarray) else np.asarray(values)


def _count(name: str) -> None:
    with (FOLDER / f"launched-{name}").open("a") as file:
        file.write(f"{os.getpid()}\n")


def _counted(name: str) -> Any:
    transform = _wrapped(getattr(np.fft, name))

    def call(*arguments: Any, **named: Any) -> Any:
        _count(name)
        return transform(*arguments, **named)

    return call


class RawModule:
    """Kernels of a source."""

    def __init__(self, code: str, options: Any = ()) -> None:
        name = hashlib.sha256(code.encode()).hexdigest()[:12]
        folder = FOLDER / f"{os.getpid()}-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        self._launch = build(code, name, folder)

    def get_function(self, name: str) -> Any:
        def run(grid: Any, block: Any, arguments: Any) -> None:
            _count(name)
            self._launch(name, (grid, block, [_out(value) for value in arguments]))

        return run


def _memory() -> tuple[int, int]:
    if "FAKE_GPU_BROKEN" in os.environ:
        raise RuntimeError("cudaErrorECCUncorrectable: uncorrectable ECC error encountered")
    return MEMORY, MEMORY


cuda = SimpleNamespace(is_available=lambda: True, runtime=SimpleNamespace(memGetInfo=_memory))
fft = SimpleNamespace(**{n: _counted(n) for n in np.fft.__all__})
linalg = SimpleNamespace(
    **{n: _wrapped(getattr(np.linalg, n)) for n in np.linalg.__all__ if n != "LinAlgError"}
)
_limits: list[int] = []


def get_default_memory_pool() -> Any:
    """Return the pool, which only notes its limit."""
    return SimpleNamespace(set_limit=lambda size: _limits.append(size))


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    found = getattr(np, name)
    return found if isinstance(found, type) or not callable(found) else _wrapped(found)


# What array_api_compat would make of CuPy is NumPy's own API here.
import array_api_compat  # noqa: E402

sys.modules["array_api_compat.cupy"] = sys.modules[__name__]
array_api_compat.cupy = sys.modules[__name__]  # type: ignore[attr-defined]
