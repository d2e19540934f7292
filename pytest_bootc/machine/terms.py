"""How the machines of a run are had, who has a say in it, and what is left of one that did not boot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_bootc.errors import BootcTestError
from pytest_bootc.machine.base import Machine
from pytest_bootc.machine.verbs import Missing
from pytest_bootc.model import Finding
from pytest_bootc.progress import Progress, Silent

if TYPE_CHECKING:
    from pytest_bootc.machine.pool import VM


@dataclass(frozen=True)
class BootFailure:
    """Why a machine is not there, the last MiB of what its console had said by then, and other files about it."""

    error: BootcTestError
    console: bytes
    what: str = "the machine did not boot"
    evidence: Mapping[str, bytes] = field(repr=False, default_factory=dict)

    def again(self) -> BootcTestError:
        """The error for those who come later: of the same kind, and short."""
        return type(self.error)(f"{self.what}: {self.error.brief} (see the first error)")


#: Is told what goes wrong with a machine while it is used: the handle, the finding where it is one of the guest's
#: own, and the error that the running test ends with. Called from another thread.
Listener = Callable[["VM", Finding | None, BootcTestError], None]
#: Looks at a machine that did not come up before it is ended, and at the error; returns files by name.
Examiner = Callable[[Machine, BootcTestError], Mapping[str, bytes]]


@dataclass(frozen=True)
class Terms:
    """How the machines of a run are had: how long a boot may take on KVM, and who has a say in it.

    ``missing`` makes the exception for what a backend cannot do, ``listener`` is told of trouble, and ``judge`` says
    what is wrong with a boot that could be saved (nothing: it is saved). ``progress`` gives who is told of long
    work. With ``keep`` the machine outlives the run, and one that an earlier run has kept is used.
    """

    boot_seconds: float
    missing: Missing
    listener: Listener
    judge: Callable[[str, Machine], str] = lambda subject, machine: ""
    progress: Callable[[], Progress] = Silent
    keep: bool = False
