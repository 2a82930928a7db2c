"""The one place that knows whether an array lives in host or in GPU memory."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

try:
    import cupy
except ImportError:
    cupy = None

TRIAL = """
extern "C" __global__ void twice(const float* values, float* doubled)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    doubled[i] = 2.0f * values[i];
}
"""

# An array of NumPy, CuPy or any other namespace that follows the array API standard.
Array = Any


def namespace(*arrays: Array) -> Any:
    """Return the array-API namespace that made `arrays` (NumPy, CuPy, …).

    Raises
    ------
    TypeError
        If the arrays come from different namespaces.
    """
    return array_api_compat.array_namespace(*arrays)


def device(array: Array) -> Any:
    """Return where `array` lives, to be given to ``xp.asarray(…, device=)``."""
    return array_api_compat.device(array)


def is_numpy(array: Array) -> bool:
    """Tell whether `array` is a NumPy array, for which SciPy and Numba are faster."""
    return isinstance(array, np.ndarray)


def is_cupy(array: Array) -> bool:
    """Tell whether `array` is a CuPy array, for which raw CUDA kernels exist."""
    return cupy is not None and isinstance(array, cupy.ndarray)


def asarray_like(values: Any, like: Array, dtype: Any = None) -> Array:
    """Copy host `values` to the namespace and device of `like`.

    Parameters
    ----------
    values : array_like
        NumPy array, nested sequence or number.
    like : Array
        The array whose namespace and device are taken.
    dtype : dtype of ``namespace(like)``, optional
        Default: that of `values`.
    """
    xp = namespace(like)
    host = np.asarray(values)
    if is_numpy(like):
        return host if dtype is None else host.astype(dtype, copy=False)
    return xp.asarray(host, dtype=dtype, device=device(like))


def to_host(array: Array) -> NDArray[Any]:
    """Copy `array` to host memory, or return it as it is when it is there already."""
    if isinstance(array, np.ndarray):
        return array
    if is_cupy(array):
        return cupy.asnumpy(array)
    return np.asarray(np.from_dlpack(array))


def to_device(array: NDArray[Any], *, gpu: bool) -> Array:
    """Copy a host `array` to the current GPU when `gpu`, else return it as it is."""
    if not gpu:
        return array
    if cupy is None:
        raise ValueError("a GPU was asked for but CuPy is not installed: pip install '.[gpu]'")
    return cupy.asarray(array)


def open_gpu(share: float) -> int:
    """Try out the current GPU, and let CuPy's pool take no more than a share of its memory.

    Returns
    -------
    int
        That share [bytes].

    Raises
    ------
    RuntimeError
        If it computes something wrong; what CUDA raises if it does not compute at all.
    """
    if cupy is None:
        raise RuntimeError("CuPy is not installed: pip install '.[gpu]'")
    limit = int(share * cupy.cuda.runtime.memGetInfo()[1])
    cupy.get_default_memory_pool().set_limit(size=limit)
    values = np.linspace(-1, 1, 256, dtype=np.float32)
    doubled = cupy.zeros(256, dtype=np.float32)
    # What all steps need: the compiler of our kernels, and cuFFT.
    kernel = cupy.RawModule(code=TRIAL, options=("-std=c++17",)).get_function("twice")
    kernel((1, 1, 1), (256, 1, 1), (cupy.asarray(values), doubled))
    spectrum = to_host(cupy.fft.rfft(doubled))
    if not np.allclose(spectrum, np.fft.rfft(2 * values), atol=1e-3):
        raise RuntimeError("it computes a wrong result")
    return limit


@cache
def cuda_source(name: str) -> str:
    """Return the source of ``kernels/cuda/<name>.cu``."""
    return (files("kernels") / "cuda" / f"{name}.cu").read_text()


@cache
def cuda_module(name: str, *options: str) -> ModuleType:
    """Return ``cuda/<name>.cu`` as a CuPy module, compiled at its first use on each GPU."""
    code = f'#line 1 "{name}.cu"\n{cuda_source(name)}'  # compiler errors then name our file
    return cupy.RawModule(code=code, options=("-std=c++17", *options))
