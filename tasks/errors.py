"""What can go wrong for reasons that the user can mend.

UserError (a ValueError)
├── UnusableData     a file that is broken, missing or not what it should be
├── WrongParameter   a value that cannot be used
└── NotThere         a project, series or result that does not exist (yet)

Every message is one line that names the file or value and the remedy.
"""

from __future__ import annotations


class UserError(ValueError):
    """Base of all errors that are shown without a traceback."""


class UnusableData(UserError):
    """A file is broken, missing, or not what it should be."""


class WrongParameter(UserError):
    """A parameter has an unusable value."""


class NotThere(UserError):
    """A project, series or result does not exist."""


def one_line(error: BaseException) -> str:
    """Return what a user should read of `error`, on one line."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror.lower()}"
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"
