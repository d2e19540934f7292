"""What can be asked of a machine, whatever backend runs it; where it lacks something, the asker is told so."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from pytest_bootc.deadline import Deadline
from pytest_bootc.machine.base import CanBeKept, HasConsole, HasControl, HasScreenshot, Machine, PowerState
from pytest_bootc.model import MachineFacts, SSHEndpoint

_COMMAND_SECONDS = 60.0
#: For how many seconds a guest on KVM may be silent before it counts as frozen.
KEEPALIVE = 15.0
#: However slow a guest is, its sshd answers a keepalive within this, or it is frozen.
LONGEST_KEEPALIVE = 60.0

#: Makes the exception for a test that asks for something that the backend lacks: one that skips it, for example.
Missing = Callable[[str], BaseException]


def keepalive_of(facts: MachineFacts) -> float:
    """For how many seconds the guest may be silent before it counts as frozen."""
    return min(LONGEST_KEEPALIVE, KEEPALIVE * facts.time_factor)


class MachineVerbs(ABC):
    """Passes on what is asked to the machine that is there at that moment.

    Where it cannot do that (a screenshot, say), ``missing`` is called with the reason, and what it returns is raised.
    """

    def __init__(self, missing: Missing) -> None:
        self._missing = missing

    @property
    @abstractmethod
    def machine(self) -> Machine:
        """The machine."""

    @property
    def name(self) -> str:
        """The machine's name."""
        return self.machine.name

    @property
    def facts(self) -> MachineFacts:
        """What a report says about the machine."""
        return self.machine.facts

    @property
    def keepalive(self) -> float:
        """For how many seconds the guest may be silent before it counts as frozen."""
        return keepalive_of(self.facts)

    @property
    def was_kept(self) -> bool:
        """Whether an earlier run has used the machine."""
        machine = self.machine
        return isinstance(machine, CanBeKept) and machine.was_kept

    def spoil(self) -> None:
        """Say that the test which begins leaves the machine unfit for a later run."""
        if isinstance(machine := self.machine, CanBeKept):
            machine.spoil()

    def power_state(self) -> PowerState:
        """What the machine is doing."""
        return self.machine.power_state()

    def ssh_endpoint(self, deadline: Deadline | None = None) -> SSHEndpoint:
        """Where the guest's sshd answers. Raises as :meth:`Machine.ssh_endpoint` does."""
        return self.machine.ssh_endpoint(deadline or Deadline.after(_COMMAND_SECONDS))

    def console_log(self) -> Path:
        """The file that holds everything the serial console has shown."""
        if not isinstance(machine := self.machine, HasConsole):
            raise self.lacking("no console")
        return machine.console_log()

    def wait_for_console_text(self, pattern: str, deadline: Deadline | None = None) -> str:
        """The first line on the console that the regular expression matches.

        :raises WaitTimeoutError: none came before the deadline (60 s).
        """
        if not isinstance(machine := self.machine, HasConsole):
            raise self.lacking("no console")
        return machine.wait_for_console_text(pattern, deadline or Deadline.after(_COMMAND_SECONDS))

    def screenshot(self, path: Path, deadline: Deadline | None = None) -> Path:
        """Write what the display shows as a PNG file and return its path."""
        if not isinstance(machine := self.machine, HasScreenshot):
            raise self.lacking("no display")
        return machine.screenshot(path, deadline or Deadline.after(_COMMAND_SECONDS))

    def control(self, command: str, deadline: Deadline | None = None) -> tuple[int, str]:
        """Run a line of POSIX sh as root, without network and sshd; its exit status and its mixed output."""
        if not isinstance(machine := self.machine, HasControl):
            raise self.lacking("no control channel")
        return machine.control(command, deadline or Deadline.after(_COMMAND_SECONDS))

    def lacking(self, what: str) -> BaseException:
        """What to raise where the backend cannot do something."""
        return self._missing(f"the backend {self.machine.facts.backend} has {what}")
