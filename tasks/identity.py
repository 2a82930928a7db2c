"""What a raw file is, wherever it lies: its name, size and a hash of sampled blocks."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tasks.errors import UnusableData
from tasks.record import FileIdentity

BLOCK = 65536
SAMPLES = 16


def identify(path: Path) -> FileIdentity:
    """Return the identity of the file at `path`: reads at most 1 MiB of it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    status = path.stat()
    return FileIdentity(
        path=str(path.absolute()),
        name=path.name,
        size=status.st_size,
        digest=_digest(path, status.st_size),
        mtime_ns=status.st_mtime_ns,
    )


def _digest(path: Path, size: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        last = max(size - BLOCK, 0)
        for place in sorted({last * i // (SAMPLES - 1) for i in range(SAMPLES)}):
            file.seek(place)
            digest.update(file.read(BLOCK))
    return digest.hexdigest()[:16]


def checked_path(identity: FileIdentity) -> Path:
    """Return the path of a raw file after checking that it is still the imported one.

    Raises
    ------
    UnusableData
        If it is missing or differs from what was imported.
    """
    path = Path(identity.path)
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise UnusableData(
            f"{path}: missing since the import: put it back, or import again from its new place"
        ) from error
    if status.st_mtime_ns != identity.mtime_ns or status.st_size != identity.size:
        if status.st_size != identity.size:
            raise UnusableData(
                f"{path}: has {status.st_size} bytes, had {identity.size} at the import: "
                "restore it, or import again"
            )
        if _digest(path, status.st_size) != identity.digest:
            raise UnusableData(
                f"{path}: its content changed since the import: restore it, or import again"
            )
    return path
