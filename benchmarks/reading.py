"""Time the reading of a frame against the raw read and decode of the library beneath.

``python benchmarks/reading.py [FOLDER]`` writes movies of each format there (600 MB; default: a
temporary folder), reads their second frames in turn with both, and prints the fastest of each.
"""

from __future__ import annotations

import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it also runs as a plain script

from tasks.formats.eer import EerMovie
from tasks.formats.movies import open_movie
from tasks.formats.mrc import write_stack

SHAPE = (4092, 5760)  # of a K3
EER_SIDE, RAW_FRAMES, GROUPING, RATE = 4096, 16, 8, 0.015  # Falcon 4, electrons per raw pixel
ROUNDS = 12
MRC = {"uint8": np.uint8, "int16": np.int16, "float16": np.float16, "float32": np.float32}


def main() -> None:
    if len(sys.argv) > 1:
        report(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        report(Path(folder))


def report(folder: Path) -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.7, (2, *SHAPE)).astype(np.uint8)
    for name, dtype in MRC.items():
        path, kind = folder / f"{name}.mrc", np.dtype(dtype)
        write_stack(path, counts.astype(dtype), 1.0)
        row(f"MRC {name}", path, lambda path=path, kind=kind: second(path, kind))
    packed = folder / "packed.mrc"
    header = bytearray((folder / "uint8.mrc").read_bytes()[:1024])
    header[12:16] = (101).to_bytes(4, "little")
    packed.write_bytes(header + (counts[..., ::2] | counts[..., 1::2] << 4).tobytes())
    row("MRC 4-bit", packed, lambda: unpacked(packed))
    for codec in (None, "lzw", "zlib"):
        path = folder / f"{codec}.tif"
        tifffile.imwrite(path, counts, compression=codec, photometric="minisblack")
        row(f"TIFF {codec}", path, lambda path=path: tifffile.imread(path, key=1, maxworkers=1))
    for compression, bits in ((65001, 7), (65000, 8)):
        path = folder / f"{compression}.eer"
        write_eer(path, [raw_frame(rng, bits) for _ in range(RAW_FRAMES)], compression)
        for sampling in (1, 2, 4):
            movie = open_movie(path, eer_fractions=GROUPING, eer_sampling=sampling)
            assert isinstance(movie, EerMovie)
            name = f"EER {bits} bits, sampling {sampling}, {GROUPING} raw frames"
            row(name, path, lambda movie=movie: decoded(movie), sampling)


def row(name: str, path: Path, library: Callable[[], object], sampling: int = 1) -> None:
    movie = open_movie(path, eer_fractions=GROUPING, eer_sampling=sampling)
    runs: list[tuple[Callable[[], object], list[float]]]
    runs = [(lambda: movie.frame(1), []), (library, [])]
    for i in range(ROUNDS + 1):  # in turn, so that whatever else runs slows both
        for run, times in runs if i % 2 else runs[::-1]:
            start = perf_counter()
            run()
            times.append(perf_counter() - start)
    ours, theirs = (min(times[1:]) for _, times in runs)
    print(f"{name:40s} {ours * 1e3:7.1f} ms {theirs * 1e3:7.1f} ms   {ours / theirs:.2f}")


def second(path: Path, kind: np.dtype[np.generic]) -> NDArray[np.generic]:
    size = SHAPE[0] * SHAPE[1]
    return np.fromfile(path, kind, size, offset=1024 + size * kind.itemsize)


def unpacked(path: Path) -> NDArray[np.uint8]:
    size = SHAPE[0] * SHAPE[1]
    pairs = np.fromfile(path, np.uint8, size // 2, offset=1024 + size // 2)
    values = np.empty(size, np.uint8)
    np.bitwise_and(pairs, 15, out=values[::2])
    np.right_shift(pairs, 4, out=values[1::2])
    return values


def decoded(movie: EerMovie) -> NDArray[np.uint8]:
    counts = np.zeros((movie.ny, movie.nx), np.uint8)
    power = movie.sampling.bit_length() - 1
    with movie.path.open("rb") as file:
        for ((offset, size),) in movie.strips[GROUPING : 2 * GROUPING]:
            file.seek(offset)
            codes = file.read(size)
            codes += bytes(len(codes) % 2)
            imagecodecs.eer_decode(codes, counts.shape, *movie.bits, superres=power, out=counts)
    return counts


def raw_frame(rng: np.random.Generator, skip: int) -> bytes:
    """Return the codes of random electrons: `skip` bits of empty pixels, then 4 of the place."""
    hit = np.flatnonzero(rng.random(EER_SIDE**2, dtype=np.float32) < RATE)
    gaps = np.diff(np.append(hit, EER_SIDE**2), prepend=-1) - 1
    ones = 2**skip - 1
    numbers = np.full(int(np.sum(gaps // ones + 1)), ones)
    widths = np.full(numbers.size, skip)
    last = np.cumsum(gaps // ones + 1) - 1
    numbers[last] = gaps % ones
    numbers[last[:-1]] |= rng.integers(0, 16, hit.size) << skip
    widths[last[:-1]] += 4
    ends = np.cumsum(widths)
    bits = np.zeros(ends[-1] + 16, np.uint8)
    for bit in range(skip + 4):
        has = widths > bit
        bits[(ends - widths)[has] + bit] = (numbers[has] >> bit) & 1
    return np.packbits(bits, bitorder="little").tobytes()


def write_eer(path: Path, frames: list[bytes], compression: int) -> None:
    data, link = bytearray(b"II+\0" + struct.pack("<HHQ", 8, 0, 0)), 8
    for codes in frames:
        at = len(data)
        data += codes
        data[link : link + 8] = struct.pack("<Q", len(data))
        tags = {256: EER_SIDE, 257: EER_SIDE, 259: compression, 273: at, 279: len(codes)}
        data += struct.pack("<Q", len(tags))
        for tag, value in tags.items():
            data += struct.pack("<HHQQ", tag, 16, 1, value)
        link = len(data)
        data += bytes(8)
    path.write_bytes(data)


if __name__ == "__main__":
    main()
