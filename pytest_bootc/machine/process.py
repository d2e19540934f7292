"""The processes of one machine, under a supervisor that ends them with us."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pytest_bootc import command
from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import ProvisionError, WaitTimeoutError

_SUPERVISOR = Path(__file__).with_name("supervisor.py")


class Processes:
    """Started by :meth:`start`; ended by :meth:`stop`, or by the end of this process, however it ends."""

    def __init__(self) -> None:
        self._supervisor: command.Process | None = None
        self._listener: threading.Thread | None = None
        self._changed = threading.Lock()
        self._pids: dict[str, int] = {}
        self._ends: dict[str, int] = {}
        self._failure = ""

    def start(
        self, processes: Sequence[Mapping[str, object]], folders: Sequence[Path], log: Path, deadline: Deadline
    ) -> None:
        """Start all; ``folders`` are removed if this process dies.

        :raises ProvisionError: one did not start; the details have its log.
        """
        with log.open("ab") as errors:
            self._supervisor = command.spawn(
                [sys.executable, "-I", "-S", _SUPERVISOR],
                stdin=command.PIPE,
                stdout=command.PIPE,
                stderr=errors,
            )
        plan = {"processes": processes, "folders": [str(folder) for folder in folders]}
        stdin = self._supervisor.stdin
        if stdin is None:
            raise ProvisionError("the supervisor has no standard input")
        # Where it has ended already, its log is told below.
        with suppress(BrokenPipeError):
            stdin.write(json.dumps(plan).encode() + b"\n")
            stdin.flush()
        self._listener = threading.Thread(target=self._listen, name="supervisor", daemon=True)
        self._listener.start()
        names = [str(process["name"]) for process in processes]
        try:
            wait_until(lambda: self._all_started(names, log), deadline, what="QEMU to start")
        except WaitTimeoutError as error:
            raise ProvisionError(
                f"the machine was not started within {deadline.seconds:g} s", details=_read_end(log)
            ) from error

    def pid(self, name: str) -> int | None:
        """The process id, also after its end."""
        with self._changed:
            return self._pids.get(name)

    def ended(self, name: str) -> int | None:
        """The exit status, negative for a signal; ``None`` while it runs."""
        with self._changed:
            return self._ends.get(name)

    @property
    def running(self) -> bool:
        """Whether the supervisor lives."""
        return self._supervisor is not None and self._supervisor.poll() is None

    def stop(self, deadline: Deadline) -> None:
        """End all and wait for it; stopping twice does nothing."""
        process, self._supervisor = self._supervisor, None
        if process is None:
            return
        # It may have ended by itself.
        with suppress(OSError):
            if process.stdin is not None:
                process.stdin.write(b"stop\n")
                process.stdin.flush()
        try:
            process.wait(max(deadline.remaining(), 5.0))
        except command.TimeoutExpired:
            # The kernel ends its children with it.
            process.kill()
            process.wait()
        if self._listener is not None:
            self._listener.join()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                _close(pipe)

    def _listen(self) -> None:
        process = self._supervisor
        if process is None or process.stdout is None:
            return
        for line in process.stdout:
            message = json.loads(line)
            with self._changed:
                if message["event"] == "started":
                    self._pids[message["name"]] = message["pid"]
                elif message["event"] == "ended":
                    self._ends[message["name"]] = message["status"]
                else:
                    self._failure = f"{message['name']}: {message['reason']}"

    def _all_started(self, names: Sequence[str], log: Path) -> bool:
        with self._changed:
            ended = {name: status for name, status in self._ends.items() if name in names}
            if self._failure or ended:
                what = self._failure or ", ".join(f"{n} ended with status {s}" for n, s in ended.items())
                raise ProvisionError(f"the machine could not be started: {what}", details=_read_end(log))
            started = all(name in self._pids for name in names)
        if not started and not self.running:
            raise ProvisionError("the machine could not be started: its supervisor ended", details=_read_end(log))
        return started


def _close(pipe: command.Pipe) -> None:
    # What was left in the buffer has no reader any more.
    with suppress(BrokenPipeError):
        pipe.close()


def _read_end(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:] if log.exists() else ""
