"""Whether QEMU runs its guest, as its host sees it."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from pathlib import Path

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import BackendError, MachineLostError, WaitTimeoutError
from pytest_bootc.machine.process import Processes
from pytest_bootc.machine.qmp import QMPClient

# Ctrl-Z stops whole groups of processes, and they go on one after the other.
_STOPPED_SECONDS = 2.0
_EXPLAINED_SECONDS = 3.0
_SHOWN_LOG = 2000


class Vitals:
    """Looks at the processes of one power-on."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._expected = False
        self._stopped_since: float | None = None

    def expect_the_end(self) -> None:
        """Somebody ends the processes on purpose."""
        self._expected = True

    def lost(self, processes: Processes, qmp: QMPClient | None) -> MachineLostError | None:
        """Why QEMU does not run its guest any more, if it does not, and neither we nor the guest ended it."""
        if self._expected:
            return None
        for name, by_itself in _BY_ITSELF.items():
            status = processes.ended(name)
            if status is not None and status not in by_itself:
                return MachineLostError(f"the {_PROGRAMS[name]} {_ended(status)}", details=self._last_words())
        event = None if qmp is None else qmp.take_event(("BLOCK_IO_ERROR", "SHUTDOWN"))
        if event is not None:
            return _told_by(event)
        return self._stopped(processes)

    def questioned(self, processes: Processes, qmp: QMPClient | None, deadline: Deadline) -> MachineLostError | None:
        """The same, asking QEMU: one that does not answer does not run anything."""
        lost = self.lost(processes, qmp)
        if lost is not None or self._expected or qmp is None or processes.ended("qemu") is not None:
            return lost
        try:
            answer = qmp.execute("query-status", deadline=deadline)
        except BackendError as error:
            return self._silent(processes, qmp, error)
        word = answer.get("status") if isinstance(answer, Mapping) else None
        if word in ("internal-error", "io-error", "paused"):
            return MachineLostError(f"QEMU has stopped the guest: {word}", details=self._last_words())
        return None

    def _silent(self, processes: Processes, qmp: QMPClient, error: BackendError) -> MachineLostError | None:
        """Why QEMU did not answer. How it ended is told a moment after its sockets are closed."""
        losses: list[MachineLostError] = []

        def explained() -> bool:
            ended = processes.ended("qemu") is not None
            losses.extend(filter(None, (self.lost(processes, qmp),)))
            return ended or bool(losses)

        try:
            wait_until(explained, Deadline.after(_EXPLAINED_SECONDS), what="the end of QEMU")
        except WaitTimeoutError:
            losses.append(MachineLostError(f"QEMU does not answer: {error.brief}"))
        return next(iter(losses), None)

    def _stopped(self, processes: Processes) -> MachineLostError | None:
        stopped = [name for name in _PROGRAMS if _is_stopped(processes.pid(name))]
        now = time.monotonic()
        if not stopped:
            self._stopped_since = None
        elif self._stopped_since is None:
            self._stopped_since = now
        elif now - self._stopped_since > _STOPPED_SECONDS:
            return MachineLostError(f"the {_PROGRAMS[stopped[0]]} was stopped by a signal (SIGSTOP)")
        return None

    def _last_words(self) -> str:
        try:
            return self._log.read_text(errors="replace")[-_SHOWN_LOG:]
        except OSError:
            # Without its log the error says what it can.
            return ""


# A guest that powers off ends QEMU with 0, and then the supervisor ends the storage daemon by SIGTERM.
_BY_ITSELF = {"qemu": (0,), "storage": (0, -signal.SIGTERM)}
_PROGRAMS = {"qemu": "QEMU process", "storage": "storage daemon of QEMU"}


def _ended(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"was ended by signal {-status}"


def _is_stopped(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        # proc_pid_stat(5): the state is behind the name, which is in parentheses and may have any characters.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except OSError:
        return False


def _told_by(event: Mapping[str, object]) -> MachineLostError | None:
    """What an event of QEMU's (qapi/block-core.json, qapi/run-state.json) means for the machine."""
    data = event.get("data")
    told = data if isinstance(data, Mapping) else {}
    if event.get("event") == "SHUTDOWN":
        # QEMU ends with status 0 then, as when its guest powers off.
        return MachineLostError("QEMU was ended by a signal") if told.get("reason") == "host-signal" else None
    reason = "the host's disk is full" if told.get("nospace") else str(told.get("reason", "an I/O error"))
    return MachineLostError(
        f"QEMU cannot {told.get('operation', 'use')} the disk of the guest: {reason}",
        resolution="make room on the disk of the cache",
    )
