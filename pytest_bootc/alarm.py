"""Ending what the main thread does, from another thread: so that no test waits for a machine that is dead.

A signal interrupts whatever the main thread waits in (PEP 475: a system call is not resumed when the handler raises),
and its handler raises the error there. It is sent again every second until the test's phase has ended, for a test
that catches everything. Only where the tests run in the main thread, as in pytest and in pytest-xdist's workers.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Far from those that programs and libraries use (SIGUSR1, SIGALRM), and by default fatal, so nobody ignores it unseen.
_SIGNAL = signal.SIGRTMAX - 5
_AGAIN_SECONDS = 1.0


class Alarm:
    """Can be rung from any thread; heard while the main thread is inside :meth:`armed`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watched: object = None
        self._error: BaseException | None = None
        self._installed = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signal while the context lasts. In another thread than the main one it does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(_SIGNAL, self._handle)
        self._installed = True
        try:
            yield
        finally:
            with self._changed:
                self._installed = False
            signal.signal(_SIGNAL, before)

    @contextmanager
    def armed(self, watched: object) -> Iterator[None]:
        """While the context lasts, a :meth:`ring` for ``watched`` raises its error here."""
        with self._changed:
            self._watched, self._error = watched, None
        try:
            yield
        finally:
            # Not by the lock: a signal that comes while it is held here must find nothing to raise.
            self._watched = None
            with self._changed:
                self._error = None
                self._changed.notify_all()

    def ring(self, watched: object, error: BaseException) -> None:
        """Raise ``error`` in the main thread if it is inside :meth:`armed` for the same. The first error counts."""
        with self._changed:
            if not self._installed or watched is None or self._watched != watched or self._error is not None:
                return
            self._error = error
        threading.Thread(target=self._send, args=(error,), name="alarm", daemon=True).start()

    def _send(self, error: BaseException) -> None:
        main = threading.main_thread().ident
        # The lock is held while the signal is sent: nobody may put the handler back, without which it is fatal.
        with self._changed:
            while main is not None and self._installed and self._watched is not None and self._error is error:
                signal.pthread_kill(main, _SIGNAL)
                self._changed.wait(_AGAIN_SECONDS)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        error = self._error
        if error is not None and self._watched is not None:
            raise error
