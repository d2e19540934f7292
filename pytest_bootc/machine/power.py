"""A machine while it is on: QEMU with its storage daemon, and the connections to both."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import BackendError, MachineLostError, ProvisionError, WaitTimeoutError
from pytest_bootc.machine.base import PowerState
from pytest_bootc.machine.control import ControlChannel
from pytest_bootc.machine.keeper import Keeper
from pytest_bootc.machine.process import Keeping, Processes
from pytest_bootc.machine.qemu_command import Wiring
from pytest_bootc.machine.qmp import QMPClient
from pytest_bootc.machine.reservation import note_process
from pytest_bootc.machine.rundir import RunFolder
from pytest_bootc.machine.vitals import Vitals

_SHORT = 10.0
_SHOWN_LOG = 2000
_HELD = 2  # connections: of the control port and of the one for events


class Power:
    """One power-on after the other of one machine."""

    def __init__(self, name: str, folder: RunFolder) -> None:
        self._name = name
        self._folder = folder
        self._log = folder.file("qemu.log")
        self._processes = Processes()
        self._vitals = Vitals(self._log)
        self._qmp: QMPClient | None = None
        self._channel: ControlChannel | None = None
        #: How the processes may be kept; where they may.
        self.keeping: Keeping | None = None

    def switch_on(self, plan: Sequence[Mapping[str, object]], wiring: Wiring, deadline: Deadline) -> None:
        """Start the processes of a plan (:func:`qemu_command.plan`) and connect to them.

        :raises ProvisionError: they did not come to run; the details have what they said.
        :raises BackendError: they run, and do not answer.
        """
        self._processes = Processes()
        self._vitals = Vitals(self._log)
        keeper = () if self.keeping is None else (self.keeping.socket,)
        for path in (wiring.qmp, wiring.control, wiring.events, wiring.nbd, *keeper):
            path.unlink(missing_ok=True)
        self._processes.start(plan, [self._folder.sockets, self._folder.path], self._log, deadline, self.keeping)
        note_process(self._folder, self.pid("qemu"))
        self._await_sockets(wiring, deadline)
        try:
            self._qmp = QMPClient.connect(wiring.qmp, deadline)
            self._channel = ControlChannel(wiring.control, wiring.events, deadline)
        except BackendError:
            # It opens these sockets before it takes its memory and its port; its log says which of them it lacks.
            with suppress(WaitTimeoutError):
                wait_until(self._refuse_the_ended, deadline.sooner(_SHORT), what="QEMU to end")
            raise

    def join(self, keeper: Keeper, wiring: Wiring, deadline: Deadline) -> None:
        """Own a machine that was kept.

        :raises BackendError: QEMU or the guest does not answer, or the guest stands still.
        """
        self._processes.join(keeper)
        self._qmp = QMPClient.connect(wiring.qmp, deadline)
        if self.state is not PowerState.RUNNING:
            raise BackendError(f"{self._name} stands still")
        if len(keeper.descriptors) > _HELD:
            control, events = (socket.socket(fileno=descriptor) for descriptor in keeper.descriptors[-_HELD:])
            self._channel = ControlChannel.over(control, events, deadline)
        else:
            self._channel = ControlChannel(wiring.control, wiring.events, deadline)

    def keep(self) -> None:
        """From now on the machine outlives this process."""
        self._processes.keep()

    def leave(self) -> None:
        """Let the machine go on without us."""
        self._vitals.expect_the_end()
        self._disconnect()
        self._processes.leave()

    def cut(self) -> None:
        """End everything; cutting what is off does nothing."""
        self._vitals.expect_the_end()
        self._disconnect()
        self._processes.stop(Deadline.after(_SHORT))

    def _disconnect(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._qmp is not None:
            self._qmp.close()
            self._qmp = None

    def press_button(self, deadline: Deadline) -> None:
        """Ask the guest to power off, as the button of a real machine does, and wait until it has."""
        if not self.running or self._qmp is None or self._qmp.closed:
            return
        # One that does not listen is ended by the force that follows.
        with suppress(BackendError, WaitTimeoutError):
            self._qmp.execute("system_powerdown", deadline=deadline.sooner(_SHORT))
            wait_until(lambda: not self.running, deadline, what="the guest to power off")

    @property
    def running(self) -> bool:
        """Whether anything of it runs."""
        return self._processes.running

    @property
    def state(self) -> PowerState:
        """What the machine is doing."""
        if not self.running or self._qmp is None or self._qmp.closed:
            return PowerState.CRASHED if self.ended("qemu") not in (None, 0) else PowerState.OFF
        answer = self._qmp.execute("query-status", deadline=Deadline.after(_SHORT))
        word = answer.get("status") if isinstance(answer, Mapping) else ""
        if word == "running":
            return PowerState.RUNNING
        standing = ("paused", "prelaunch", "suspended", "postmigrate")
        return PowerState.PAUSED if word in standing else PowerState.CRASHED

    @property
    def qmp(self) -> QMPClient:
        """The connection to QEMU.

        :raises BackendError: the machine is off.
        """
        if self._qmp is None:
            raise BackendError(f"{self._name} is not running")
        return self._qmp

    @property
    def channel(self) -> ControlChannel:
        """The connection to the agent in the guest.

        :raises BackendError: the machine is off.
        """
        if self._channel is None:
            raise BackendError(f"{self._name} is not running")
        return self._channel

    def ended(self, name: str) -> int | None:
        """With which status a process has ended; ``None`` while it runs."""
        return self._processes.ended(name)

    def pid(self, name: str) -> int:
        """The process of ``qemu`` or ``storage`` on the host.

        :raises BackendError: it was never started.
        """
        pid = self._processes.pid(name)
        if pid is None:
            raise BackendError(f"{self._name} has no process {name}")
        return pid

    def lost(self) -> MachineLostError | None:
        """Why QEMU does not run the guest any more, where neither we nor the guest ended it."""
        return self._vitals.lost(self._processes, self._qmp)

    def questioned(self, deadline: Deadline) -> MachineLostError | None:
        """The same, asking QEMU itself."""
        return self._vitals.questioned(self._processes, self._qmp, deadline)

    def _refuse_the_ended(self) -> None:
        status = self.ended("qemu")
        if status is not None:
            words = self._log.read_text(errors="replace")[-_SHOWN_LOG:]
            raise ProvisionError(f"QEMU ended at once, with status {status}", details=words)

    def _await_sockets(self, wiring: Wiring, deadline: Deadline) -> None:
        def there() -> bool:
            self._refuse_the_ended()
            return all(path.exists() for path in (wiring.qmp, wiring.control, wiring.events))

        try:
            wait_until(there, deadline, what="QEMU's sockets")
        except WaitTimeoutError as error:
            raise ProvisionError(f"QEMU opened no sockets within {deadline.seconds:g} s") from error
