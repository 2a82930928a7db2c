"""LLVM vectors of 16 floats, for the Numba code that loops over arrays in whole registers.

Offsets are in elements; nothing is checked. LLVM cuts vectors to what the machine has.
"""

from __future__ import annotations

from typing import Any

from numba.core import cgutils
from numba.np.arrayobj import make_array

ir: Any = vars(cgutils)["ir"]  # that of llvmlite, Numba's own
LANES = 16
INDEX, FLOAT = ir.IntType(64), ir.FloatType()
VECTOR = ir.VectorType(FLOAT, LANES)
FUSED = ("contract",)


def data_of(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """Return where the numbers of an array argument begin."""
    array: Any = make_array(kind)  # type: ignore[no-untyped-call]
    return array(context, builder, value).data


def _vector(builder: Any, base: Any, offset: Any) -> Any:
    """Return where the 16 floats at an offset are, as one vector."""
    return builder.bitcast(builder.gep(base, [offset]), VECTOR.as_pointer())


def load(builder: Any, base: Any, offset: Any) -> Any:
    """Read 16 floats."""
    value = builder.load(_vector(builder, base, offset))
    value.align = 4
    return value


def store(builder: Any, value: Any, base: Any, offset: Any) -> None:
    """Write 16 floats."""
    builder.store(value, _vector(builder, base, offset)).align = 4


def shuffle(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    """Return 16 of the 32 lanes of two vectors."""
    return builder.shuffle_vector(
        a, b, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [int(lane) for lane in lanes])
    )


def splat(builder: Any, value: Any) -> Any:
    """Return a vector of 16 times the same float."""
    undefined = ir.Constant(VECTOR, ir.Undefined)
    one = builder.insert_element(undefined, value, ir.IntType(32)(0))
    return shuffle(builder, one, undefined, [0] * LANES)


def turned(builder: Any, block: list[Any]) -> list[Any]:
    """Return 16 vectors of 16 floats transposed."""
    block = list(block)
    # Swap ever larger corners: lanes of b at `half` with those of a beyond it.
    for half in (1, 2, 4, 8):
        low = [(i if not i & half else LANES + (i & ~half)) for i in range(LANES)]
        high = [((i | half) if not i & half else LANES + i) for i in range(LANES)]
        for i in range(LANES):
            if not i & half:
                a, b = block[i], block[i | half]
                block[i] = shuffle(builder, a, b, low)
                block[i | half] = shuffle(builder, a, b, high)
    return block
