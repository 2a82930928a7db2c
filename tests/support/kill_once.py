"""A unit of work whose worker is killed the first time, as for want of memory."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class KillOnce:
    """Kills its process before or after `function` did its work, if `marker` is not there yet."""

    function: Callable[..., Any]
    marker: str
    after: bool

    def __call__(self, *arguments: Any) -> Any:
        try:
            os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return self.function(*arguments)
        if self.after:
            self.function(*arguments)
        return os.kill(os.getpid(), signal.SIGKILL)
