"""Looking at a machine while it is used: what its console says, and whether its host side still runs it.

On a thread of its own, so that a test which waits for a dead guest learns of it within seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from pytest_bootc.errors import BootcTestError, CrashError, MachineLostError
from pytest_bootc.machine.base import HasConsole, HasVitalSigns, Machine
from pytest_bootc.machine.console import ConsoleReader
from pytest_bootc.model import Accelerator, Finding, Trouble

_PERIOD = 0.2


class Watch:
    """The findings about one machine, and its death: ``death`` is why it cannot be used any more.

    ``tell`` is called from the watching thread for each finding that was printed while nobody was booting, and for
    the death; with the error that ends the running test.
    """

    def __init__(self, machine: Machine, tell: Callable[[Finding | None, BootcTestError], None]) -> None:
        self._machine = machine
        self._tell = tell
        self._reader = ConsoleReader(machine.console_log()) if isinstance(machine, HasConsole) else None
        self._looking = threading.Lock()
        self._done = threading.Event()
        self._quiet = True
        self.findings: list[Finding] = []
        self.death: BootcTestError | None = None
        self._thread = threading.Thread(target=self._run, name=f"watch {machine.name}", daemon=True)

    def begin(self) -> None:
        """The machine has booted: take down what its console said until now, and look at it from now on."""
        self.look()
        with self._looking:
            self._quiet = False
        if not self._thread.is_alive() and not self._done.is_set():
            self._thread.start()

    def pause(self) -> None:
        """The machine is booted once more: whoever boots it looks at the console himself."""
        with self._looking:
            self._quiet = True

    def end(self) -> None:
        """Stop looking."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> BootcTestError | None:
        """Look now; the machine's death, if it is dead."""
        told: list[tuple[Finding | None, BootcTestError]] = []
        with self._looking:
            try:
                fresh = self._reader.new_findings() if self._reader is not None else []
                lost = None
            except OSError as error:
                # The console is on a disk of the host.
                fresh, lost = [], MachineLostError(f"the console cannot be read any more: {error.strerror}")
            for finding in fresh:
                of_the_emulator = self._is_of_the_emulator(finding)
                # What the emulator does during a boot, and the guest survives, is held against nobody.
                if not (self._quiet and of_the_emulator):
                    self.findings.append(finding)
                if not self._quiet:
                    error_ = _error(finding, emulator=of_the_emulator)
                    told.append((finding, error_))
                    if finding.kind.fatal and self.death is None:
                        self.death = error_
            if self.death is None and not self._quiet:
                self.death = lost or (self._machine.lost() if isinstance(self._machine, HasVitalSigns) else None)
                if self.death is not None:
                    told.append((None, self.death))
        for finding_, error_ in told:
            self._tell(finding_, error_)
        return self.death

    def _run(self) -> None:
        while not self._done.wait(_PERIOD):
            self.look()

    def _is_of_the_emulator(self, finding: Finding) -> bool:
        # An emulated processor stands still whenever its host has something better to do.
        emulated = self._machine.facts.accelerator == Accelerator.TCG.value
        return emulated and (finding.kind is Trouble.LOCKUP or "int3: 0000" in finding.text)


def _error(finding: Finding, *, emulator: bool) -> BootcTestError:
    """What ends the test during which this was printed."""
    if emulator:
        return MachineLostError(
            f"the emulator failed the guest: {finding.text}",
            resolution="try again with fewer machines at a time, a newer QEMU, or KVM",
        )
    return CrashError(f"the guest is in trouble: {finding}")
