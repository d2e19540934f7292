from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import Blame, BootcTestError, CrashError, MachineLostError
from pytest_bootc.machine.base import Machine, PowerState
from pytest_bootc.machine.watch import Watch
from pytest_bootc.model import Finding, MachineFacts, Scope, SSHEndpoint, Trouble

PANIC = "[    1.512345] Kernel panic - not syncing: sysrq triggered crash"
OOPS = "[    1.012345] BUG: kernel NULL pointer dereference, address: 0000000000000000"
OOM = "[   40.123456] Out of memory: Killed process 812 (gnome-shell)"
LOCKUP = "[  112.345678] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [kworker/1:1:35]"
WORKQUEUE = "[  112.345678] BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 34s!"
INT3 = "[    2.503113] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI"
KVM = MachineFacts("small", "kvm", "none", "", Scope.RUNNING_SYSTEM)
TCG = replace(KVM, accelerator="tcg")
Told = list[tuple[Finding | None, BootcTestError]]


class Bare:
    """A machine that has nothing to look at."""

    name = "small"
    facts = KVM

    def start(self, deadline: Deadline) -> None: ...
    def stop(self, deadline: Deadline) -> None: ...
    def reboot(self, deadline: Deadline) -> None: ...

    def power_state(self) -> PowerState:
        return PowerState.RUNNING

    def ssh_endpoint(self, deadline: Deadline) -> SSHEndpoint:
        return SSHEndpoint("localhost", 22)


class Full(Bare):
    """A machine with a console and a host side."""

    def __init__(self, console: Path) -> None:
        self.console = console
        self.console.touch()
        self.loss: MachineLostError | None = None

    def console_log(self) -> Path:
        return self.console

    def wait_for_console_text(self, pattern: str, deadline: Deadline) -> str:
        return pattern

    def lost(self) -> MachineLostError | None:
        return self.loss

    def questioned(self, deadline: Deadline) -> MachineLostError | None:
        return self.loss

    def prints(self, *lines: str) -> None:
        with self.console.open("a") as file:
            file.write("".join(f"{line}\r\n" for line in lines))


Begin = Callable[[Machine], Watch]


@pytest.fixture
def machine(tmp_path: Path) -> Full:
    return Full(tmp_path / "console.log")


@pytest.fixture
def told() -> Told:
    """What the watch has told so far."""
    return []


@pytest.fixture
def watching(told: Told) -> Iterator[Begin]:
    """Watch a machine; the watch is not begun."""
    watches: list[Watch] = []

    def watch(machine: Machine) -> Watch:
        watches.append(Watch(machine, lambda finding, error: told.append((finding, error))))
        return watches[-1]

    yield watch
    for each in watches:
        each.end()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("watch ")]


@pytest.fixture
def watch(watching: Begin, machine: Full) -> Watch:
    return watching(machine)


def seen(told: Told, count: int = 1) -> Told:
    """What is told, within five seconds."""
    return wait_until(lambda: told if len(told) >= count else None, Deadline.after(5), what="the watch to tell")


def nothing_more(told: Told) -> None:
    """Nothing is told any more, though the watch has looked several times."""
    before = len(told)
    time.sleep(0.7)
    assert told[before:] == []


@pytest.mark.parametrize(
    ("line", "kind", "fatal"), [(PANIC, Trouble.PANIC, True), (LOCKUP, Trouble.LOCKUP, True), (OOM, Trouble.OOM, False)]
)
def test_trouble_on_the_console_is_told_while_it_streams(
    watch: Watch, machine: Full, told: Told, line: str, kind: Trouble, *, fatal: bool
) -> None:
    watch.begin()
    machine.prints("Linux version 6.12")
    nothing_more(told)
    machine.prints(line)
    ((finding, error),) = seen(told)
    assert finding == Finding(kind, line)
    assert isinstance(error, CrashError)
    assert error.brief == f"the guest is in trouble: {kind.value}: {line}"
    assert error.blame is Blame.IMAGE
    assert watch.death is (error if fatal else None)
    assert watch.look() is watch.death
    nothing_more(told)
    assert watch.findings == [Finding(kind, line)]


def test_the_first_fatal_line_is_the_death(watch: Watch, machine: Full, told: Told) -> None:
    watch.begin()
    machine.prints(OOM, OOPS, PANIC)
    errors = [error for _, error in seen(told, 3)]
    assert watch.death is errors[1]
    assert [finding.kind for finding in watch.findings] == [Trouble.OOM, Trouble.OOPS, Trouble.PANIC]


def test_the_loss_of_the_host_side_is_told_once(watch: Watch, machine: Full, told: Told) -> None:
    watch.begin()
    machine.loss = MachineLostError("the QEMU process was ended by signal 9 (SIGKILL)")
    assert seen(told) == [(None, machine.loss)]
    machine.loss = MachineLostError("another reason")
    nothing_more(told)
    assert watch.look() is told[0][1]


def test_what_the_console_says_comes_before_what_the_host_says(watch: Watch, machine: Full, told: Told) -> None:
    watch.begin()
    with watch._looking:
        machine.prints(PANIC)
        machine.loss = MachineLostError("the QEMU process ended with status 1")
    seen(told)
    nothing_more(told)
    assert [finding for finding, _ in told] == [Finding(Trouble.PANIC, PANIC)]
    assert watch.death is told[0][1]


def test_looking_does_not_wait_for_the_thread(watch: Watch, machine: Full, told: Told) -> None:
    watch.begin()
    machine.prints(PANIC)
    death = watch.look()
    assert isinstance(death, CrashError)
    nothing_more(told)
    assert [error for _, error in told] == [death]


def test_a_boot_is_looked_at_by_whoever_boots(watch: Watch, machine: Full, told: Told) -> None:
    machine.prints(OOM)
    machine.loss = MachineLostError("not yet")
    assert watch.look() is None
    machine.loss = None
    watch.begin()
    nothing_more(told)
    assert watch.findings == [Finding(Trouble.OOM, OOM)]
    watch.pause()
    machine.prints(PANIC)
    machine.loss = MachineLostError("it is rebooted")
    nothing_more(told)
    assert watch.death is None
    machine.loss = None
    watch.begin()
    nothing_more(told)
    assert watch.death is None
    assert [finding.kind for finding in watch.findings] == [Trouble.OOM, Trouble.PANIC]
    machine.prints(OOPS)
    assert [finding for finding, _ in seen(told)] == [Finding(Trouble.OOPS, OOPS)]


@pytest.mark.parametrize("line", [LOCKUP, WORKQUEUE, INT3])
def test_an_emulated_processor_that_stands_still_is_the_laboratorys(
    watch: Watch, machine: Full, told: Told, line: str
) -> None:
    machine.facts = TCG
    watch.begin()
    machine.prints(line)
    ((finding, error),) = seen(told)
    assert finding is not None
    assert isinstance(error, MachineLostError)
    assert error.brief == f"the emulator failed the guest: {line}"
    assert "KVM" in error.resolution
    assert watch.death is error
    assert error.blame is Blame.LAB


@pytest.mark.parametrize("line", [PANIC, OOPS, OOM])
def test_any_other_trouble_of_an_emulated_guest_is_its_own(watch: Watch, machine: Full, told: Told, line: str) -> None:
    machine.facts = TCG
    watch.begin()
    machine.prints(line)
    assert isinstance(seen(told)[0][1], CrashError)


@pytest.mark.parametrize(("facts", "kept"), [(TCG, False), (KVM, True)])
@pytest.mark.parametrize("line", [LOCKUP, INT3])
def test_what_the_emulator_did_during_a_boot_is_held_against_nobody(
    watch: Watch, machine: Full, told: Told, facts: MachineFacts, line: str, *, kept: bool
) -> None:
    machine.facts = facts
    machine.prints(line, OOM)
    watch.begin()
    assert watch.death is None
    assert [finding.text for finding in watch.findings] == ([line, OOM] if kept else [OOM])
    nothing_more(told)


def test_a_console_that_cannot_be_read_any_more(watch: Watch, machine: Full, told: Told) -> None:
    watch.begin()
    machine.console.unlink()
    ((finding, error),) = seen(told)
    assert finding is None
    assert isinstance(error, MachineLostError)
    assert error.brief == "the console cannot be read any more: No such file or directory"
    assert watch.look() is error
    nothing_more(told)


def test_a_console_that_is_missing_during_a_boot(watch: Watch, machine: Full, told: Told) -> None:
    watch.begin()
    watch.pause()
    machine.console.unlink()
    nothing_more(told)
    assert watch.look() is None
    machine.prints("Linux version 6.12")
    watch.begin()
    machine.prints(PANIC)
    assert isinstance(seen(told)[0][1], CrashError)


def test_a_machine_with_nothing_to_look_at(watching: Begin, told: Told) -> None:
    watch = watching(Bare())
    watch.begin()
    assert watch.look() is None
    nothing_more(told)
    assert watch.findings == []


def test_nothing_is_told_after_the_end(watch: Watch, machine: Full, told: Told) -> None:
    watch.begin()
    watch.end()
    machine.prints(PANIC)
    nothing_more(told)
    watch.end()
    watch.begin()
    nothing_more(told)


def test_a_watch_that_was_never_begun_can_be_ended(watch: Watch) -> None:
    watch.end()


def test_the_listener_may_look_itself(machine: Full) -> None:
    heard: list[BootcTestError | None] = []
    watch = Watch(machine, lambda finding, error: heard.append(watch.look()))
    watch.begin()
    machine.prints(PANIC)
    wait_until(lambda: heard, Deadline.after(5), what="the listener to return")
    watch.end()
    assert heard == [watch.death]
