"""What is watched over while a test runs: its machine, so that a verdict has the right cause and comes in time.

A test that waits for a dead guest is ended; a failure whose cause lies in the machine is told by that cause; and after
each test the guest has to be well (:mod:`pytest_bootc.health`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from pytest_bootc import health
from pytest_bootc.alarm import Alarm
from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import (
    BackendError,
    BootcTestError,
    ConfigError,
    GuestError,
    HealthError,
    ImageError,
)
from pytest_bootc.exemptions import Exemption, exemption_for
from pytest_bootc.machine.base import PULSE, HasConsole, HasControl, Machine, PowerState
from pytest_bootc.machine.console import ConsoleReader
from pytest_bootc.machine.pool import VM
from pytest_bootc.model import Finding, Trouble
from pytest_bootc.reports import junit

_CHECK_SECONDS = 20.0
_LONGEST_CHECK_SECONDS = 60.0
_WORDS = {kind.value: kind for kind in Trouble}


@dataclass(frozen=True)
class Watched:
    """The test that runs: of which image it is, and which trouble it causes on purpose."""

    image: str
    expected: frozenset[Trouble] = frozenset()
    exempted: list[str] = field(default_factory=list)


class Guard:
    """Watches over the tests of one process."""

    def __init__(self, exemptions: Sequence[Exemption]) -> None:
        self.alarm = Alarm()
        self._exemptions = exemptions
        self._ledgers: dict[str, health.Ledger] = {}
        self._watched: Watched | None = None
        self._debugged = False
        self._unheard: list[tuple[VM, Finding | None, BootcTestError]] = []

    def stand(self) -> None:
        """A debugger stands in the test: nothing ends it until :meth:`go_on`."""
        self._debugged = True

    def go_on(self) -> None:
        """The test goes on, and is ended if something has gone wrong with its machine meanwhile."""
        self._debugged = False
        unheard, self._unheard = self._unheard, []
        for heard in unheard:
            self.hear(*heard)

    def hear(self, vm: VM, finding: Finding | None, error: BootcTestError) -> None:
        """Something goes wrong with a machine: end the test that uses it, unless that is what it is about.

        Called from another thread than the test's.
        """
        vm.timeline.note(f"{vm.subject}: {error.brief}")
        if self._debugged:
            self._unheard.append((vm, finding, error))
            return
        watched = self._watched
        if finding is not None and watched is not None and not self.counting([finding], watched):
            return
        vm.interrupt(error)
        self.alarm.ring(vm.subject, error)

    @contextmanager
    def watching(self, subject: str, watched: Watched) -> Iterator[None]:
        """While the context lasts, what happens to the machine of this subject ends it."""
        self._watched = watched
        try:
            with self.alarm.armed(subject):
                yield
        finally:
            self._watched = None

    def counting(self, findings: Sequence[Finding], watched: Watched) -> list[Finding]:
        """Those that neither the test expects nor an exemption covers; what is exempted is noted."""
        counting = []
        for finding in findings:
            exemption = exemption_for(finding, watched.image, self._exemptions)
            if exemption is not None:
                told = f"{finding} ({exemption})"
                if told not in watched.exempted:
                    watched.exempted.append(told)
            elif finding.kind not in watched.expected:
                counting.append(finding)
        return counting

    def judge_boot(self, machine: Machine, image: str) -> str:
        """What is wrong with a machine that has just booted, and is exempted by nothing.

        :raises GuestError: it does not say.
        :raises BackendError: it cannot be asked any more.
        """
        console = ConsoleReader(machine.console_log()).new_findings() if isinstance(machine, HasConsole) else []
        found = health.Ledger().enter(_read_health(machine), console, time.monotonic(), machine.facts.time_factor)
        return "; ".join(str(finding) for finding in self.counting(found, Watched(image)))

    def new_findings(self, vm: VM, *, thorough: bool = True) -> list[Finding]:
        """What has gone wrong in the guest since it was last asked.

        Unless it is to be ``thorough``, a guest that has done nothing since then is not asked again.

        :raises GuestError: it does not say.
        :raises BackendError: it cannot be asked any more.
        """
        machine = vm.machine
        ledger = self._ledgers.setdefault(machine.name, health.Ledger())
        console = vm.findings()
        if not isinstance(machine, HasControl) or machine.power_state() is not PowerState.RUNNING:
            return ledger.enter_console(console)
        if not thorough and ledger.may_rest(time.monotonic()) and ledger.is_resting(_pulse(machine)):
            return ledger.enter_console(console)
        reading, now = _read_health(machine), time.monotonic()
        found = ledger.enter(reading, console, now, machine.facts.time_factor)
        ledger.rest(_pulse(machine), now)
        return found


def _read_health(machine: Machine) -> health.Reading:
    if not isinstance(machine, HasControl):
        return health.Reading((), (), ())
    return health.parse(machine.control(health.CHECK, _patience(machine))[1])


def _pulse(machine: Machine) -> str | None:
    """How often systemd and journald have run in the guest; ``None`` where that cannot be told."""
    if not isinstance(machine, HasControl):
        return None
    status, output = machine.control(PULSE, _patience(machine))
    return None if status else output


def _patience(machine: Machine) -> Deadline:
    return Deadline.after(min(_CHECK_SECONDS * machine.facts.time_factor, _LONGEST_CHECK_SECONDS))


class Exempting:
    """What does not count in one test."""

    def __init__(self, guard: Guard, watched: Watched) -> None:
        self._guard = guard
        self._watched = watched

    def without(self, findings: Sequence[Finding]) -> list[Finding]:
        """The findings that count; what is exempted of them is told in the report."""
        return self._guard.counting(findings, self._watched)


def watched_by(item: pytest.Item, image: str) -> Watched:
    """What the test's marker ``expects_trouble`` says.

    :raises ConfigError: it says nothing, something unknown, or no reason.
    """
    expected: set[Trouble] = set()
    for mark in item.iter_markers("expects_trouble"):
        strangers = [word for word in (*mark.args, *(mark.kwargs.keys() - {"reason"})) if word not in tuple(_WORDS)]
        if strangers or not mark.args or not str(mark.kwargs.get("reason", "")).strip():
            what = f"does not know {strangers[0]!r}" if strangers else "needs words, and a reason"
            raise ConfigError(
                f"the marker expects_trouble {what}",
                resolution=f"write expects_trouble(WORD, ..., reason=TEXT), with words of {', '.join(_WORDS)}",
            )
        expected.update(_WORDS[word] for word in mark.args)
    return Watched(image, frozenset(expected))


@contextmanager
def guarded(guard: Guard, find: Callable[[], VM | None], subject: str, watched: Watched) -> Iterator[None]:
    """A phase of a test that uses the machine of a subject, which ``find`` finds once there is one.

    What the phase raises is told by its cause, if that is the machine.
    """
    before = None if (vm := find()) is None else vm.trouble
    try:
        with guard.watching(subject, watched):
            yield
        # A test may have caught what ended it.
        if (dead := _death(find(), watched, guard)) is not None and dead is not before:
            raise dead
    except (Exception, pytest.fail.Exception) as error:
        cause = _cause(error, find(), watched, guard)
        if cause is None or cause is error:
            raise
        told = error.brief if isinstance(error, BootcTestError) else str(error).partition("\n")[0]
        cause.add_note(f"The test showed it as {type(error).__name__}: {told}")
        raise cause.with_traceback(error.__traceback__) from None


def check_health(guard: Guard, vm: VM | None, watched: Watched, *, last: bool = True) -> None:
    """Look at the guest after a test, thoroughly after the ``last`` one that is known.

    :raises HealthError: something has gone wrong in it since it was last looked at.
    :raises BootcTestError: it does not say how it is.
    """
    if vm is None or vm.running is None:
        return
    try:
        found = guard.new_findings(vm, thorough=last)
    except (GuestError, BackendError) as error:
        raise vm.question() or error from error
    counting = guard.counting(found, watched)
    if counting:
        more = f" (and {len(counting) - 1} more)" if len(counting) > 1 else ""
        raise HealthError(
            f"the guest is not well: {counting[0]}{more}",
            details="\n".join(str(finding) for finding in counting),
            resolution="nothing of it was there after the tests before; the evidence has the guest's journal",
        )


def add_findings(error: BaseException, guard: Guard, vm: VM | None, watched: Watched) -> None:
    """Say in a failure what else was found in the guest; it is not told again in the test that comes next."""
    if vm is None or vm.running is None or vm.look() is not None:
        return
    try:
        found = guard.counting(guard.new_findings(vm), watched)
    except (GuestError, BackendError) as trouble:
        error.add_note(f"Afterwards the guest did not say how it is: {trouble.brief}")
        return
    found = [finding for finding in found if finding.text not in str(error)]
    if found:
        error.add_note("\n".join(("Found in the guest after it:", *(f"  {finding}" for finding in found))))


def note_exempted(item: pytest.Item, watched: Watched) -> None:
    """Have the reports tell what was found and does not count."""
    known = [value for name, value in item.user_properties if name == junit.EXEMPTED]
    item.user_properties += [(junit.EXEMPTED, told) for told in watched.exempted if told not in known]


def _cause(error: BaseException, vm: VM | None, watched: Watched, guard: Guard) -> BootcTestError | None:
    """Why the machine is dead, where a test has failed for that; ``None`` where it is alive, or meant to be dead."""
    if vm is None or vm.running is None:
        return None
    speaks_for_itself = isinstance(error, ConfigError | ImageError | HealthError)
    if isinstance(error, BootcTestError | OSError) and not speaks_for_itself:
        vm.question()
    return _death(vm, watched, guard)


def _death(vm: VM | None, watched: Watched, guard: Guard) -> BootcTestError | None:
    """Why the machine is dead; ``None`` where it is alive, or the test means to kill it."""
    if vm is None or vm.running is None:
        return None
    fatal = [finding for finding in vm.findings() if finding.kind.fatal]
    meant = bool(fatal) and not guard.counting(fatal, watched)
    return None if meant else vm.trouble
