"""What steps that turn one view's image into another have in common."""

from __future__ import annotations


def memory_of_image(shape: tuple[int, int]) -> int:
    """Return the most memory that one of these functions takes [bytes]."""
    return 100_000_000 + shape[0] * shape[1] * 4 * 12
