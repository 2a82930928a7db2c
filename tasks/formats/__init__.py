"""File formats of other programs, one a file."""
