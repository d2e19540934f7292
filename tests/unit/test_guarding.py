"""Guards and handles on fake machines; what needs whole runs is in tests/plugin/test_watching.py."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pytest_bootc import guarding, health
from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import (
    BootcTestError,
    ConfigError,
    CrashError,
    GuestError,
    HealthError,
    ImageError,
    MachineLostError,
    SSHError,
)
from pytest_bootc.exemptions import Exemption
from pytest_bootc.guarding import (
    Exempting,
    Guard,
    Watched,
    add_findings,
    check_health,
    guarded,
    note_exempted,
    watched_by,
)
from pytest_bootc.machine.base import PULSE
from pytest_bootc.machine.fake import Answer, FakeMachine, Script
from pytest_bootc.machine.pool import VM
from pytest_bootc.machine.terms import Terms
from pytest_bootc.model import Finding, GoldenDisk, MachineSpec, Trouble
from pytest_bootc.progress import SILENT, Progress
from pytest_bootc.reports import junit

IMAGE = "h.example/server:v1"
KNOWN = Exemption(Trouble.FAILED_UNIT, "known.service", "h.example/*", "me", "tracker", datetime.date(2999, 12, 31))
UNIT = Finding(Trouble.FAILED_UNIT, "a.service")
EXEMPTED = Finding(Trouble.FAILED_UNIT, "known.service")
PANIC = Finding(Trouble.PANIC, "Kernel panic - not syncing: sysrq triggered crash")
FAILS = health.ALL_IS_WELL.replace(
    "\036jobs", "a.service loaded failed failed A\nknown.service loaded failed failed B\n\036jobs"
)


class Backend:
    """Fake machines that answer so; all of them until the first one is lost."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answers: tuple[Answer, ...] = ()
        self.made = 0

    @contextmanager
    def provision(
        self, spec: MachineSpec, disk: GoldenDisk | None, waiting: Progress | None = SILENT
    ) -> Iterator[FakeMachine]:
        self.made += 1
        folder = self.folder / str(self.made)
        folder.mkdir()
        yield FakeMachine(f"fake-{self.made}", Script(control=self.answers), folder)


@dataclass
class Asked:
    """What machines were asked."""

    pulses: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def since(self) -> list[str]:
        """The requests since this was called last."""
        told, self.requests = self.requests, []
        return told


@pytest.fixture
def guard() -> Guard:
    return Guard([KNOWN])


@pytest.fixture
def watched() -> Watched:
    return Watched(IMAGE)


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    return Backend(tmp_path)


@pytest.fixture
def vm(backend: Backend, guard: Guard) -> Iterator[VM]:
    """A handle; nothing has booted."""
    made = VM("server", backend, Terms(boot_seconds=5, missing=LookupError, listener=guard.hear))
    yield made
    made.release()


def boot(vm: VM, backend: Backend, *answers: Answer) -> None:
    backend.answers = answers
    vm.use(MachineSpec(), None)


def console(vm: VM, text: str) -> None:
    with vm.console_log().open("a") as file:
        file.write(f"{text}\n")


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have little patience with machines that do not answer."""
    monkeypatch.setattr(guarding, "_CHECK_SECONDS", 0.2)
    monkeypatch.setattr("pytest_bootc.machine.pool._LAST_CHANCE_SECONDS", 0.2)


def test_what_counts(guard: Guard) -> None:
    watched = Watched(IMAGE, frozenset({Trouble.OOM}))
    oom = Finding(Trouble.OOM, "Out of memory: Killed process 1 (x)")
    assert guard.counting([UNIT, EXEMPTED, oom, PANIC, EXEMPTED], watched) == [UNIT, PANIC]
    told = "failed-unit: known.service (until 2999-12-31, me, tracker)"
    assert watched.exempted == [told]
    assert guard.counting([], watched) == []
    assert Exempting(guard, watched).without([EXEMPTED, PANIC]) == [PANIC]
    assert watched.exempted == [told]


def test_an_exemption_of_another_image_does_not_count(guard: Guard) -> None:
    watched = Watched("other.example/server:v1")
    assert guard.counting([EXEMPTED], watched) == [EXEMPTED]
    assert watched.exempted == []


def test_what_was_exempted_is_told_once_per_test(pytester: pytest.Pytester, watched: Watched) -> None:
    item = pytester.getitem("def test_func(): pass")
    watched.exempted.append("a")
    note_exempted(item, watched)
    watched.exempted.append("b")
    note_exempted(item, watched)
    note_exempted(item, watched)
    assert item.user_properties == [(junit.EXEMPTED, "a"), (junit.EXEMPTED, "b")]


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ("", set()),
        ("@pytest.mark.expects_trouble('oom', reason='it eats memory')", {Trouble.OOM}),
        (
            "@pytest.mark.expects_trouble('oom', 'failed-unit', reason='x')\n"
            "@pytest.mark.expects_trouble('panic', reason='y')",
            {Trouble.OOM, Trouble.FAILED_UNIT, Trouble.PANIC},
        ),
    ],
)
def test_trouble_that_a_test_expects(pytester: pytest.Pytester, marks: str, expected: set[Trouble]) -> None:
    item = pytester.getitem(f"import pytest\n{marks}\ndef test_func(): pass")
    assert watched_by(item, IMAGE) == Watched(IMAGE, frozenset(expected))


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ("", "needs words, and a reason"),
        ("'oom'", "needs words, and a reason"),
        ("'oom', reason=' '", "needs words, and a reason"),
        ("'oom', reason=''", "needs words, and a reason"),
        ("reason='x'", "needs words, and a reason"),
        ("'oom', 'sadness', reason='x'", "does not know 'sadness'"),
        ("'Oom', reason='x'", "does not know 'Oom'"),
        ("['oom'], reason='x'", "does not know ['oom']"),
        ("'oom', because='x'", "does not know 'because'"),
        ("5, reason='x'", "does not know 5"),
    ],
)
def test_a_marker_that_says_nothing(pytester: pytest.Pytester, arguments: str, what: str) -> None:
    item = pytester.getitem(f"import pytest\n@pytest.mark.expects_trouble({arguments})\ndef test_func(): pass")
    with pytest.raises(ConfigError) as caught:
        watched_by(item, IMAGE)
    assert caught.value.brief == f"the marker expects_trouble {what}"
    assert "panic, oops" in caught.value.resolution


def test_a_panic_ends_the_test(vm: VM, backend: Backend, guard: Guard, watched: Watched) -> None:
    boot(vm, backend)
    began = time.monotonic()
    with (  # noqa: PT012
        guard.alarm.installed(),
        pytest.raises(CrashError) as caught,
        guarded(guard, lambda: vm, "server", watched),
    ):
        console(vm, PANIC.text)
        time.sleep(20)
    assert time.monotonic() - began < 5
    assert caught.value is vm.trouble
    assert caught.value.brief == f"the guest is in trouble: {PANIC}"
    assert vm.timeline.events()[-1][1] == f"server: {caught.value.brief}"


def test_whatever_waits_for_the_guest_is_interrupted(vm: VM, backend: Backend, guard: Guard, watched: Watched) -> None:
    boot(vm, backend)
    interrupted: list[BootcTestError] = []
    with vm.when_interrupted(interrupted.append), guard.watching("server", watched):
        console(vm, PANIC.text)
        wait_until(lambda: interrupted, Deadline.after(5), what="the guard to interrupt")
    assert interrupted == [vm.look()]


def test_expected_and_exempted_trouble_ends_nothing(vm: VM, backend: Backend) -> None:
    guard = Guard([Exemption(Trouble.OOM, "*(known)*", "*", "me", "tracker", datetime.date(2999, 12, 31))])
    watched = Watched(IMAGE, frozenset({Trouble.PANIC}))
    interrupted: list[BootcTestError] = []
    boot(vm, backend)
    with guard.alarm.installed(), guard.watching("server", watched), vm.when_interrupted(interrupted.append):
        guard.hear(vm, PANIC, CrashError("expected"))
        guard.hear(vm, Finding(Trouble.OOM, "Out of memory: Killed process 1 (known)"), CrashError("exempted"))
        time.sleep(0.2)
        assert interrupted == []
        with pytest.raises(MachineLostError):  # noqa: PT012
            guard.hear(vm, None, MachineLostError("QEMU was killed"))
            time.sleep(20)
    assert len(interrupted) == 1
    assert [text for _, text in vm.timeline.events()][-3:] == [
        "server: expected",
        "server: exempted",
        "server: QEMU was killed",
    ]
    assert watched.exempted == ["oom: Out of memory: Killed process 1 (known) (until 2999-12-31, me, tracker)"]


def test_between_tests_nothing_is_ended(vm: VM, backend: Backend, guard: Guard, watched: Watched) -> None:
    boot(vm, backend)
    with guard.alarm.installed():
        with guard.watching("server", watched):
            pass
        guard.hear(vm, PANIC, CrashError("late"))
        with guard.watching("desktop", watched):
            guard.hear(vm, PANIC, CrashError("of another machine"))
            time.sleep(0.2)


def test_nothing_ends_a_test_in_which_a_debugger_stands(
    vm: VM, backend: Backend, guard: Guard, watched: Watched
) -> None:
    boot(vm, backend)
    with guard.alarm.installed(), guard.watching("server", watched):
        guard.stand()
        guard.hear(vm, PANIC, CrashError("while it stands"))
        time.sleep(0.2)
        with pytest.raises(CrashError, match="while it stands"):
            _go_on_and_wait(guard)


def _go_on_and_wait(guard: Guard) -> None:
    guard.go_on()
    time.sleep(10)


def test_what_a_test_expected_is_not_expected_after_it(vm: VM, backend: Backend, guard: Guard) -> None:
    boot(vm, backend)
    interrupted: list[BootcTestError] = []
    with vm.when_interrupted(interrupted.append):
        with guard.watching("server", Watched(IMAGE, frozenset({Trouble.PANIC}))):
            guard.hear(vm, PANIC, CrashError("expected"))
        assert interrupted == []
        guard.hear(vm, PANIC, CrashError("late"))
    assert [error.brief for error in interrupted] == ["late"]


def test_a_failure_has_its_cause_in_the_machine(vm: VM, backend: Backend, guard: Guard, watched: Watched) -> None:
    boot(vm, backend, Answer("kill", loses="the QEMU process was ended by signal 9 (SIGKILL)"))
    with pytest.raises(GuestError):
        vm.control("kill", Deadline.after(0.1))
    with pytest.raises(MachineLostError) as caught, guarded(guard, lambda: vm, "server", watched):
        raise SSHError("the connection was reset", details="by somebody")
    assert caught.value.brief == "the QEMU process was ended by signal 9 (SIGKILL)"
    assert "The test showed it as SSHError: the connection was reset" in caught.value.__notes__


@pytest.mark.parametrize(
    "error", [AssertionError("1 == 2"), pytest.fail.Exception("no"), KeyError("x"), SSHError("exit status 1")]
)
def test_a_failure_with_a_machine_that_is_well(
    vm: VM, backend: Backend, guard: Guard, watched: Watched, error: BaseException
) -> None:
    boot(vm, backend, Answer(":"))
    with pytest.raises(type(error)) as caught, guarded(guard, lambda: vm, "server", watched):
        raise error
    assert caught.value is error


def test_a_guest_that_hangs_is_the_cause_of_what_it_does_not_answer(
    vm: VM, backend: Backend, guard: Guard, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    boot(vm, backend, Answer("", hang=True))
    # A wrong question and a missed expectation say enough.
    for error in (ConfigError("no such program"), ImageError("no sshd"), AssertionError("1 == 2")):
        with pytest.raises(type(error)) as said, guarded(guard, lambda: vm, "server", watched):
            raise error
        assert said.value is error
    with pytest.raises(CrashError, match="the guest hangs") as caught, guarded(guard, lambda: vm, "server", watched):
        raise TimeoutError("timed out")
    assert caught.value.__notes__ == ["The test showed it as TimeoutError: timed out"]


def test_a_skip_and_an_interrupt_go_on(vm: VM, backend: Backend, guard: Guard, watched: Watched) -> None:
    boot(vm, backend)
    console(vm, PANIC.text)
    for error in (pytest.skip.Exception("not here"), KeyboardInterrupt()):
        with pytest.raises(type(error)), guarded(guard, lambda: vm, "server", watched):
            raise error


def test_a_death_that_a_test_means_is_no_cause(vm: VM, backend: Backend, guard: Guard) -> None:
    boot(vm, backend)
    with guarded(guard, lambda: vm, "server", Watched(IMAGE, frozenset({Trouble.PANIC}))):
        console(vm, PANIC.text)
    assert isinstance(vm.trouble, CrashError)


def test_a_test_that_has_caught_the_end_fails_all_the_same(
    vm: VM, backend: Backend, guard: Guard, watched: Watched
) -> None:
    boot(vm, backend)
    with pytest.raises(CrashError, match="sysrq"), guarded(guard, lambda: vm, "server", watched):
        console(vm, PANIC.text)
    # It is told where it came, not in each phase afterwards.
    with guarded(guard, lambda: vm, "server", watched):
        pass


def test_a_phase_without_a_machine(guard: Guard, watched: Watched) -> None:
    with guarded(guard, lambda: None, "server", watched):
        pass
    with pytest.raises(SSHError), guarded(guard, lambda: None, "server", watched):
        raise SSHError("x")
    check_health(guard, None, watched)
    add_findings(AssertionError(), guard, None, watched)


def test_a_guest_that_is_well(vm: VM, backend: Backend, guard: Guard, watched: Watched) -> None:
    check_health(guard, vm, watched)
    boot(vm, backend)
    check_health(guard, vm, watched)
    assert guard.new_findings(vm) == []


def test_a_guest_that_is_not_well(vm: VM, backend: Backend, guard: Guard, watched: Watched) -> None:
    boot(
        vm, backend, Answer(health.NAME, output=FAILS.replace("\036jobs", "b.service loaded failed failed C\n\036jobs"))
    )
    with pytest.raises(HealthError) as caught:
        check_health(guard, vm, watched)
    assert caught.value.brief == "the guest is not well: failed-unit: a.service (and 1 more)"
    assert caught.value.details == "failed-unit: a.service\nfailed-unit: b.service"
    assert len(watched.exempted) == 1
    check_health(guard, vm, watched)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What machines are asked from now on, and the pulses that they tell, one after the other."""
    told = Asked()
    control = FakeMachine.control

    def counted(self: FakeMachine, command: str, deadline: Deadline) -> tuple[int, str]:
        told.requests.append("pulse" if command == PULSE else "all")
        if command != PULSE:
            return control(self, command, deadline)
        return (0, told.pulses.pop(0)) if told.pulses else (1, "")

    monkeypatch.setattr(FakeMachine, "control", counted)
    return told


def test_a_guest_that_rests_is_not_asked_again(
    vm: VM, backend: Backend, guard: Guard, watched: Watched, asked: Asked
) -> None:
    asked.pulses = ["1", "1", "2", "3", "4"]
    boot(vm, backend)
    check_health(guard, vm, watched, last=False)
    assert asked.since() == ["all", "pulse"], "its pulse was not known before"
    check_health(guard, vm, watched, last=False)
    assert asked.since() == ["pulse"], "it has done nothing"
    console(vm, "Out of memory: Killed process 1 (x)")
    with pytest.raises(HealthError, match="oom"):
        check_health(guard, vm, watched, last=False)
    assert asked.since() == ["pulse", "all", "pulse"], "it has done something"
    check_health(guard, vm, watched)
    assert asked.since() == ["all", "pulse"], "the last test"


def test_the_console_of_a_guest_that_rests(
    vm: VM, backend: Backend, guard: Guard, watched: Watched, asked: Asked
) -> None:
    asked.pulses = ["1", "1"]
    boot(vm, backend)
    check_health(guard, vm, watched, last=False)
    console(vm, "Out of memory: Killed process 1 (x)")
    with pytest.raises(HealthError, match="oom"):
        check_health(guard, vm, watched, last=False)
    assert asked.since() == ["all", "pulse", "pulse"]


def test_a_guest_without_a_pulse_is_always_asked(
    vm: VM, backend: Backend, guard: Guard, watched: Watched, asked: Asked
) -> None:
    boot(vm, backend)
    for _ in range(2):
        check_health(guard, vm, watched, last=False)
        assert asked.since() == ["all", "pulse"]


def test_trouble_on_the_console_that_ended_nothing(vm: VM, backend: Backend, guard: Guard, watched: Watched) -> None:
    boot(vm, backend)
    console(vm, "Out of memory: Killed process 1 (x)")
    with pytest.raises(HealthError, match=r"^the guest is not well: oom: Out of memory: Killed process 1 \(x\)\n"):
        check_health(guard, vm, watched)
    vm.crash()
    console(vm, "Out of memory: Killed process 2 (x)")
    with pytest.raises(HealthError, match="process 2"):
        check_health(guard, vm, watched)
    check_health(guard, vm, watched)


def test_another_machine_has_a_ledger_of_its_own(vm: VM, backend: Backend, guard: Guard) -> None:
    boot(vm, backend, Answer(health.NAME, output=FAILS))
    assert guard.new_findings(vm) == [UNIT, EXEMPTED]
    assert guard.new_findings(vm) == []
    vm.condemn()
    vm.use(MachineSpec(), None)
    assert guard.new_findings(vm) == [UNIT, EXEMPTED]


@pytest.mark.parametrize("output", ["", "sh: not found\n", FAILS[:30]])
def test_a_guest_that_does_not_say_how_it_is(
    vm: VM, backend: Backend, guard: Guard, watched: Watched, output: str
) -> None:
    boot(vm, backend, Answer(health.NAME, output=output), Answer(":"))
    with pytest.raises(GuestError) as caught:
        check_health(guard, vm, watched)
    assert caught.value.brief == "the guest did not say how it is"


def test_a_guest_that_says_nothing_hangs(
    vm: VM, backend: Backend, guard: Guard, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    boot(vm, backend, Answer("", hang=True))
    with pytest.raises(CrashError, match="the guest hangs"):
        check_health(guard, vm, watched)


def test_what_else_was_found_is_told_in_a_failure(vm: VM, backend: Backend, guard: Guard, watched: Watched) -> None:
    boot(vm, backend, Answer(health.NAME, output=FAILS))
    console(vm, "Out of memory: Killed process 1 (x)")
    error = AssertionError("a.service is not active")
    add_findings(error, guard, vm, watched)
    assert error.__notes__ == ["Found in the guest after it:\n  oom: Out of memory: Killed process 1 (x)"]
    # Not again in the test that comes next.
    check_health(guard, vm, watched)
    other = AssertionError("1 == 2")
    add_findings(other, guard, vm, watched)
    assert not hasattr(other, "__notes__")


def test_a_guest_that_does_not_answer_after_a_failure(
    vm: VM, backend: Backend, guard: Guard, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    boot(vm, backend, Answer("", hang=True))
    error = AssertionError("1 == 2")
    add_findings(error, guard, vm, watched)
    (note,) = error.__notes__
    assert note.startswith("Afterwards the guest did not say how it is: ")


def test_nothing_is_asked_of_a_dead_guest(vm: VM, backend: Backend, guard: Guard, watched: Watched) -> None:
    boot(vm, backend, Answer(health.NAME, output=FAILS))
    console(vm, PANIC.text)
    error = AssertionError("1 == 2")
    add_findings(error, guard, vm, watched)
    assert not hasattr(error, "__notes__")
