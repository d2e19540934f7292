"""The processes of one machine, under a supervisor that ends them with us."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_bootc import command
from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import ProvisionError, WaitTimeoutError
from pytest_bootc.machine.keeper import Keeper

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_LISTENER_SECONDS = 5.0


@dataclass(frozen=True)
class Keeping:
    """How processes go on without us, once :meth:`Processes.keep` was called.

    Who comes next connects to ``socket``; the end comes when nobody has been there for ``idle`` seconds. Meanwhile
    connections to the sockets ``hold`` are held. The descriptors are of locks that the processes hold with us:
    ``lock`` is handed on to whoever comes, ``leases`` are not.
    """

    socket: Path
    idle: float
    hold: tuple[Path, ...]
    lock: int
    leases: tuple[int, ...] = ()

    def plan(self) -> dict[str, object]:
        """As the supervisor reads it."""
        hold = [str(path) for path in self.hold]
        return {"socket": str(self.socket), "idle": self.idle, "hold": hold, "lock": self.lock}


class Processes:
    """Started by :meth:`start`; ended by :meth:`stop`, or by the end of this process, however it ends.

    After :meth:`keep` the end of this process leaves them running, and :meth:`leave` does.
    """

    def __init__(self) -> None:
        self._supervisor: command.Process | Keeper | None = None
        self._listener: threading.Thread | None = None
        self._changed = threading.Lock()
        self._pids: dict[str, int] = {}
        self._ends: dict[str, int] = {}
        self._failure = ""

    def start(
        self,
        processes: Sequence[Mapping[str, object]],
        folders: Sequence[Path],
        log: Path,
        deadline: Deadline,
        keeping: Keeping | None = None,
    ) -> None:
        """Start all; ``folders`` are removed if this process dies.

        With ``keeping`` they can be kept.

        :raises ProvisionError: one did not start; the details have its log.
        """
        with log.open("ab") as errors:
            self._supervisor = command.spawn(
                [sys.executable, "-I", "-S", _SUPERVISOR],
                stdin=command.PIPE,
                stdout=command.PIPE,
                stderr=errors,
                pass_fds=() if keeping is None else (keeping.lock, *keeping.leases),
            )
        plan: dict[str, object] = {"processes": processes, "folders": [str(folder) for folder in folders]}
        if keeping is not None:
            plan["kept"] = keeping.plan()
        self._say(json.dumps(plan))  # where it has ended already, its log is told below
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

    def join(self, keeper: Keeper) -> None:
        """Own processes that were kept."""
        self._supervisor = keeper
        for message in keeper.told:
            self._note(message)
        self._listener = threading.Thread(target=self._listen, name="supervisor", daemon=True)
        self._listener.start()

    def keep(self) -> None:
        """From now on they are not ended by our end."""
        self._say("keep")

    def leave(self) -> None:
        """Let them go on without us."""
        process = self._supervisor
        self._let_go()
        if process is not None and not isinstance(process, Keeper):
            command.disown(process)

    def stop(self, deadline: Deadline) -> None:
        """End all and wait for it; stopping twice does nothing."""
        process = self._supervisor
        if process is None:
            return
        self._say("stop")
        try:
            process.wait(max(deadline.remaining(), 5.0))
        except command.TimeoutExpired:
            # The kernel ends its children with it.
            process.kill()
            process.wait()
        self._let_go()

    def _say(self, line: str) -> None:
        # It may have ended by itself.
        with suppress(OSError):
            if self._supervisor is not None and self._supervisor.stdin is not None:
                self._supervisor.stdin.write(line.encode() + b"\n")
                self._supervisor.stdin.flush()

    def _let_go(self) -> None:
        process, self._supervisor = self._supervisor, None
        if process is None:
            return
        if process.stdin is not None:
            _close(process.stdin)
        if isinstance(process, Keeper):
            process.close()
        if self._listener is not None:
            self._listener.join(_LISTENER_SECONDS)
        if process.stdout is not None:
            _close(process.stdout)

    def _listen(self) -> None:
        process = self._supervisor
        if process is None or process.stdout is None:
            return
        for line in process.stdout:
            self._note(json.loads(line))

    def _note(self, message: Mapping[str, Any]) -> None:
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
