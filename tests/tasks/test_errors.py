from __future__ import annotations

import errno
import pickle

import pytest

from tasks.errors import NotThere, UnusableData, UserError, WrongParameter, one_line
from tasks.formats.errors import FormatError
from tasks.work import may_pass


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (WrongParameter("binning is 0:\n  use 1"), "binning is 0: use 1"),
        (OSError(errno.ENOSPC, "No space left on device", "/p/c/0"), "/p/c/0: no space left"),
        (OSError(errno.EIO, "Input/output error"), "input/output error"),
        (FormatError("a.mdoc", "bad", "mend it", 3), "a.mdoc, line 3: bad; mend it"),
        (ValueError(), "ValueError:"),
        (KeyError("x"), "KeyError: 'x'"),
        (OSError("closed"), "OSError: closed"),
    ],
)
def test_an_error_is_one_line_for_people(error: BaseException, shown: str) -> None:
    line = one_line(error)
    assert line.startswith(shown)
    assert "\n" not in line


@pytest.mark.parametrize("kind", [UserError, UnusableData, WrongParameter, NotThere])
def test_errors_travel_between_processes(kind: type[UserError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("a: b")))
    assert type(copy) is kind
    assert str(copy) == "a: b"
    assert isinstance(copy, ValueError)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError(errno.EIO, "Input/output error"), True),
        (ConnectionResetError(errno.ECONNRESET, "reset"), True),
        (TimeoutError("slow"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), False),
        (OSError(errno.EROFS, "Read-only file system"), False),
        (FileNotFoundError(errno.ENOENT, "none"), False),
        (PermissionError(errno.EACCES, "denied"), False),
        (UnusableData("NaN"), False),
        (ValueError("bad"), False),
        (FormatError("a", "b", "c"), False),
    ],
    ids=lambda value: getattr(value, "strerror", None) or str(value),
)
def test_only_faults_that_may_pass_are_tried_again(error: BaseException, again: bool) -> None:
    assert may_pass(error) is again
