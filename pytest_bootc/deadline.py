"""A point in time that a whole operation must keep, handed down through every call that waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pytest_bootc.errors import WaitTimeoutError

T = TypeVar("T")

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5


@dataclass(frozen=True)
class Deadline:
    """A point on the monotonic clock, in seconds.

    Made once at the edge (``Deadline.after(30)``) and passed down, so that ten steps share thirty seconds.
    The monotonic clock does not jump with the wall clock; it stands still while the host sleeps.
    """

    at: float
    seconds: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline that lies so many seconds ahead."""
        return cls(at=time.monotonic() + seconds, seconds=seconds)

    def remaining(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self.at - time.monotonic())

    def expired(self) -> bool:
        """Whether the point has passed."""
        return time.monotonic() >= self.at

    def sooner(self, seconds: float) -> Deadline:
        """Whichever comes first: this deadline, or the one so many seconds ahead."""
        other = Deadline.after(seconds)
        return other if other.at < self.at else self

    def pause(self, seconds: float) -> None:
        """Sleep so long, but not past the deadline."""
        time.sleep(min(seconds, self.remaining()))


def wait_until(check: Callable[[], T | None], deadline: Deadline, *, what: str, last: Callable[[], str] = str) -> T:
    """Call ``check`` until it returns something true; return that.

    ``check`` raises to give up at once (a failed unit does not become active). ``last`` tells what was seen
    last, for the error's details. The first look is immediate; the pauses grow from 20 ms to 0.5 s.

    :raises WaitTimeoutError: the deadline passed.
    """
    pause = _FIRST_PAUSE
    while True:
        seen = check()
        if seen:
            return seen
        if deadline.expired():
            raise WaitTimeoutError(
                f"waited {deadline.seconds:g} s for {what}",
                details=last(),
            )
        deadline.pause(pause)
        pause = min(_LONGEST_PAUSE, pause * 1.5)
