"""EER movies for tests: a small encoder of the published format."""

from __future__ import annotations

import struct
from pathlib import Path

NY, NX = 64, 96
METADATA = (
    b'<metadata><item name="commercialName">Falcon 4</item>'
    b'<item name="sensorPixelSize.width" unit="m">7.5e-11</item></metadata>\0'
)
BITS = {65000: (8, 2, 2), 65001: (7, 2, 2), 65002: (7, 2, 2)}

Electron = tuple[int, int, int, int]  # row of the scan, column, quarter of a pixel down, right


def encoded(
    electrons: list[Electron],
    bits: tuple[int, int, int] = (7, 2, 2),
    shape: tuple[int, int] = (NY, NX),
    idle: bool = False,
) -> bytes:
    """Return the codes of a raw frame; `idle`: codes that only skip keep their place bits."""
    skip, x_bits, y_bits = bits
    ones, value, length, done = 2**skip - 1, 0, 0, 0

    def put(number: int, n: int) -> None:
        nonlocal value, length
        value |= number << length
        length += n

    def put_skip(n: int) -> None:
        while n >= ones:
            put(ones, skip)
            if idle:
                put(0, x_bits + y_bits)
            n -= ones
        put(n, skip)

    for row, column, down, right in sorted(electrons):
        pixel = row * shape[1] + column
        put_skip(pixel - done)
        put(right ^ x_bits, x_bits)  # 2 of 2 bits: place 0 is −2 in two's complement
        put(down ^ y_bits, y_bits)
        done = pixel + 1
    put_skip(shape[0] * shape[1] - done)
    return value.to_bytes(length // 8 + 1, "little")


def write_eer(
    path: Path,
    frames: list[bytes],
    compression: int = 65001,
    tags: dict[int, int] | None = None,
    final_image: bool = False,
    shape: tuple[int, int] = (NY, NX),
) -> Path:
    """Write raw frames as a BigTIFF file, as the camera's software does."""
    data = bytearray(b"II+\0" + struct.pack("<HHQ", 8, 0, 0))
    link = 8
    pages = [(compression, codes) for codes in frames]
    if final_image:
        pages.insert(0, (1, bytes(shape[0] * shape[1])))
    for i, (kind, codes) in enumerate(pages):
        at = len(data)
        data += codes
        extra = len(data)
        data += METADATA
        entries = {256: (4, 1, shape[1]), 257: (4, 1, shape[0]), 259: (3, 1, kind)}
        entries |= {258: (3, 1, 8 if kind == 1 else 1), 277: (3, 1, 1), 278: (4, 1, shape[0])}
        entries |= {273: (16, 1, at), 279: (16, 1, len(codes))}
        entries |= {tag: (3, 1, value) for tag, value in (tags or {}).items()}
        if i == 0:
            entries[65001] = (7, len(METADATA), extra)
        data[link : link + 8] = struct.pack("<Q", len(data))
        data += struct.pack("<Q", len(entries))
        for tag, (code, count, value) in sorted(entries.items()):
            data += struct.pack("<HHQQ", tag, code, count, value)
        link = len(data)
        data += bytes(8)
    path.write_bytes(data)
    return path
