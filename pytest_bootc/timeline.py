"""What happened to a machine and when, as its host saw it: for the evidence of a failure."""

from __future__ import annotations

import threading
import time


class Timeline:
    """Events in the order in which they were noted, from any thread; times are on the monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[tuple[float, str]] = []

    def note(self, text: str) -> None:
        """Something happens now."""
        with self._lock:
            self._events.append((time.monotonic(), text))

    def events(self) -> list[tuple[float, str]]:
        """Everything so far, oldest first: when, and what."""
        with self._lock:
            return list(self._events)
