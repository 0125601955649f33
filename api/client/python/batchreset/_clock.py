"""Time, which tests replace."""

from __future__ import annotations

import time
from typing import Optional


class Deadline:
    """The end of a call, its waits included."""

    def __init__(self, timeout: Optional[float]) -> None:
        self._timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout

    def bound(self, seconds: float) -> float:
        """Gives as many of the seconds as are left. Raises TimeoutError if none are."""
        if self._end is None:
            return seconds
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"it took longer than {self._timeout:g} s")
        return min(seconds, left)

    @property
    def over(self) -> bool:
        """Tells whether it has come."""
        return self._end is not None and time.monotonic() >= self._end

    def sleep(self, seconds: float) -> None:
        """Waits so many seconds. Raises TimeoutError when the deadline has come."""
        bounded = self.bound(seconds)
        sleep(bounded)
        if bounded < seconds:
            self.bound(0)


def sleep(seconds: float) -> None:
    """Waits so many seconds."""
    time.sleep(seconds)
