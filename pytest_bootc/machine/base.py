"""What every backend offers, and the table of backends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Protocol, runtime_checkable

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import BootcTestError, ConfigError
from pytest_bootc.model import GoldenDisk, HeldLogin, MachineFacts, MachineSpec, RunConfig, SSHEndpoint
from pytest_bootc.progress import SILENT, Progress

#: What the agent in a guest answers by itself, in the place of a command: how often systemd and journald have run.
#: While that is the same they have done nothing. Where it cannot be told the exit status is not 0.
PULSE = "@pulse"


class PowerState(Enum):
    """What a machine is doing, as its host sees it."""

    RUNNING = "running"
    PAUSED = "paused"
    OFF = "off"
    CRASHED = "crashed"


class Machine(Protocol):
    """A virtual or real machine that boots one golden disk."""

    @property
    def name(self) -> str:
        """Unique among all machines of this host or cluster."""

    @property
    def facts(self) -> MachineFacts:
        """What a report says about the machine."""

    def start(self, deadline: Deadline) -> None:
        """Power on and wait until the guest says that it is ready.

        :raises ProvisionError: the host could not run it.
        :raises BootError: the guest ran and gave up.
        :raises BootTimeoutError: the guest ran and was not ready in time.
        """

    def stop(self, deadline: Deadline) -> None:
        """Power off: by asking the guest, and by force at the deadline. Stopping what is off does nothing."""

    def reboot(self, deadline: Deadline) -> None:
        """Reboot and wait until the guest is ready again, with another boot id. Raises as :meth:`start` does."""

    def power_state(self) -> PowerState:
        """What the machine is doing."""

    def ssh_endpoint(self, deadline: Deadline) -> SSHEndpoint:
        """Where the guest's own sshd answers; waits until it can be asked.

        :raises ImageError: the image has no sshd.
        :raises BackendError: the machine is not running, or has no network.
        """


@runtime_checkable
class HasConsole(Protocol):
    """A machine with a serial console that is recorded."""

    def console_log(self) -> Path:
        """The file that holds everything printed so far."""

    def wait_for_console_text(self, pattern: str, deadline: Deadline) -> str:
        """The first line that the regular expression matches.

        :raises WaitTimeoutError: none came before the deadline.
        """


@runtime_checkable
class HasScreenshot(Protocol):
    """A machine with a display that can be pictured from outside the guest."""

    def screenshot(self, path: Path, deadline: Deadline) -> Path:
        """Write what the display shows as a PNG file and return its path."""


@runtime_checkable
class HasControl(Protocol):
    """A machine with a channel into the guest that needs neither its network nor its sshd."""

    def control(self, command: str, deadline: Deadline) -> tuple[int, str]:
        """Run a line of POSIX sh as root; its exit status and its output, both streams mixed.

        In the place of a command it may be :data:`PULSE`.
        """


@runtime_checkable
class HasCrash(Protocol):
    """A machine whose power can be cut."""

    def crash(self) -> None:
        """End it at once, as a power cut would."""


@runtime_checkable
class HasVitalSigns(Protocol):
    """A machine whose host side can be looked at."""

    def lost(self) -> BootcTestError | None:
        """Why the machine is not run any more, where nobody asked for that; quick, and from any thread."""

    def questioned(self, deadline: Deadline) -> BootcTestError | None:
        """The same, asking whatever runs the machine: for when a guest does not answer and it is unclear why."""


@runtime_checkable
class HasSavedBoots(Protocol):
    """A machine that can be started from a boot that was saved, and whose own boot can be."""

    @property
    def is_saved(self) -> bool:
        """Whether another machine like this one can be started from a saved boot."""

    def start_warm(self, deadline: Deadline, judge: Callable[[], str], progress: Progress) -> None:
        """Run from a saved boot; where there is none, boot, and save that unless ``judge`` says what is wrong with it.

        Raises as :meth:`Machine.start` does.
        """

    def resume(self) -> bool:
        """Run from a saved boot; ``False`` where there is none that can be used."""

    def pause(self) -> None:
        """Have the guest stand still, clock included."""

    def wake(self) -> None:
        """Have it go on, at the time that it is now."""


@runtime_checkable
class CanBeKept(Protocol):
    """A machine that can outlive this process, and be used by a later one."""

    @property
    def was_kept(self) -> bool:
        """Whether an earlier run has used it."""

    def keep(self) -> None:
        """From now on the end of this process, however it ends, leaves it running."""

    def leave(self, login: HeldLogin | None) -> None:
        """Let it go on without us, and keep a login for who uses it next; the descriptor is closed here."""

    def take_held_login(self) -> HeldLogin | None:
        """The login that its last user has left, if there is one and nobody has taken it."""

    def spoil(self) -> None:
        """Say that no later run is to use it."""


@runtime_checkable
class KeepsMachines(Protocol):
    """A backend with machines that can be kept."""

    def kept(self, spec: MachineSpec, disk: GoldenDisk | None) -> AbstractContextManager[Machine | None]:
        """A machine that an earlier run has kept, and which runs; ``None`` where there is none of this kind.

        Leaving the context ends it as with :meth:`Backend.provision`.
        """


class Backend(Protocol):
    """A way to run machines."""

    def provision(
        self, spec: MachineSpec, disk: GoldenDisk | None, waiting: Progress | None = SILENT
    ) -> AbstractContextManager[Machine]:
        """A machine that is not started yet; leaving the context ends it and removes what it used.

        ``waiting`` is told while the host has no room for it; with ``None`` it is not waited for.

        :raises ProvisionError: the host cannot provide such a machine.
        """


# Loaded by name: each of them may bring a library that takes a quarter of a second to import.
_BACKENDS = {
    "qemu": "pytest_bootc.machine.qemu_backend:QemuBackend",
    "remote": "pytest_bootc.machine.remote:RemoteBackend",
    "fake": "pytest_bootc.machine.fake:FakeBackend",
}


def backend_names() -> tuple[str, ...]:
    """The words that ``--backend`` takes."""
    return tuple(_BACKENDS)


def load_backend(config: RunConfig, home: Path) -> Backend:
    """The backend that the run asks for; ``home`` is the folder of its state (the cache).

    :raises ConfigError: there is none of that name.
    """
    try:
        module, _, name = _BACKENDS[config.backend].partition(":")
    except KeyError:
        raise ConfigError(
            f"there is no backend {config.backend!r}", resolution=f"choose one of {', '.join(_BACKENDS)}"
        ) from None
    backend: Backend = getattr(import_module(module), name)(config, home)
    return backend
