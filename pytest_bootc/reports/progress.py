"""What a person sees of pull, build and boot while pytest is silent: one line for each, which counts where it can."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

_REDRAW_SECONDS = 0.2
_MIB = 1 << 20


class Writer(Protocol):
    """The part of pytest's terminal that is needed."""

    def write(self, msg: str, *, flush: bool = False) -> None:
        """Write a text as it is."""

    def ensure_newline(self) -> None:
        """End the line that pytest has begun for the running file."""


@dataclass(frozen=True)
class Terminal:
    """Where to write: ``live`` where a line can be drawn again; ``uncaptured`` makes writing reach the terminal."""

    writer: Writer
    live: bool
    uncaptured: Callable[[], AbstractContextManager[object]] = nullcontext


class TerminalProgress:
    """Announces operations on a terminal, or as plain lines in a log."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, what: str, total: int | None = None) -> Iterator[_Stage]:
        """Show ``what`` while the context lasts, and how long it took when it is over."""
        with self._terminal.uncaptured():
            self._terminal.writer.ensure_newline()
        stage = _Stage(self._write, what, total, live=self._terminal.live)
        try:
            yield stage
        finally:
            stage.end()

    def _write(self, text: str) -> None:
        with self._lock, self._terminal.uncaptured():
            self._terminal.writer.write(text, flush=True)


class _Stage:
    """One line."""

    def __init__(self, write: Callable[[str], None], what: str, total: int | None, *, live: bool) -> None:
        self._write = write
        self._what = what
        self._total = total
        self._live = live
        self._done = 0
        self._began = time.monotonic()
        self._drawn = self._began
        self._lock = threading.Lock()
        write(f"bootc: {what} ...")

    def advance(self, amount: int) -> None:
        """So much more is done."""
        with self._lock:
            self._done += amount
            now = time.monotonic()
            if not self._live or now - self._drawn < _REDRAW_SECONDS:
                return
            self._drawn = now
            told = self._told()
        self._write(f"\r\x1b[Kbootc: {self._what} ... {told}")

    def end(self) -> None:
        """Say how long it took."""
        seconds = f"{time.monotonic() - self._began:.1f} s"
        self._write(f"\r\x1b[Kbootc: {self._what}: {seconds}\n" if self._live else f" {seconds}\n")

    def _told(self) -> str:
        if not self._total:
            return f"{self._done // _MIB} MiB"
        percent = min(100, 100 * self._done // self._total)
        return f"{percent} % of {self._total // _MIB} MiB" if self._total >= _MIB else f"{percent} %"
