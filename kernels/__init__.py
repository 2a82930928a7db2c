"""Compute: arrays and numbers in, arrays and numbers out, on NumPy or CuPy."""
