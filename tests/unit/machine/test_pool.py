from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import (
    BackendError,
    Blame,
    BootcTestError,
    BootError,
    CrashError,
    GuestError,
    MachineLostError,
    ProvisionError,
)
from pytest_bootc.machine import pool
from pytest_bootc.machine.fake import Answer, FakeMachine, Script
from pytest_bootc.machine.pool import VM, Pool
from pytest_bootc.machine.terms import Terms
from pytest_bootc.model import Finding, GoldenDisk, HeldLogin, MachineSpec, Trouble
from pytest_bootc.progress import SILENT, Progress

Heard = list[tuple[Trouble | None, str]]
SMALL, BIG = MachineSpec(memory_mib=512), MachineSpec(memory_mib=1024)


class LackingError(Exception):
    """What these tests raise where a machine cannot do something."""


class Backend:
    """Fake machines, one script for all of them; remembers what it gave out."""

    def __init__(self, folder: Path, boots: tuple[str, ...] = ("ready",)) -> None:
        self.folder = folder
        self.boots = boots
        self.events: list[str] = []
        self.refuses = False
        self.answers: tuple[Answer, ...] = ()
        self.console = ""

    @contextmanager
    def provision(
        self, spec: MachineSpec, disk: GoldenDisk | None, waiting: Progress | None = SILENT
    ) -> Iterator[FakeMachine]:
        self.events.append(f"provision {spec.memory_mib}")
        if self.refuses:
            raise ProvisionError("no room")
        script = Script(boots=self.boots, console=self.console, control=self.answers)
        folder = self.folder / str(len(self.events))
        folder.mkdir()
        yield FakeMachine(f"m-{len(self.events)}", script, folder)
        self.events.append("release")


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    return Backend(tmp_path)


@pytest.fixture
def heard() -> Heard:
    """What the listener was told."""
    return []


@pytest.fixture
def vm(backend: Backend, heard: Heard) -> Iterator[VM]:
    def listen(vm: VM, finding: Finding | None, error: BootcTestError) -> None:
        heard.append((finding and finding.kind, error.brief))

    handle = VM("image", backend, Terms(boot_seconds=0.05, missing=LackingError, listener=listen))
    yield handle
    handle.release()


def test_the_same_shape_is_the_same_machine(vm: VM, backend: Backend) -> None:
    vm.use(SMALL, None)
    name = vm.name
    vm.use(SMALL, None)
    assert vm.name == name
    vm.use(BIG, None)
    assert vm.name != name
    vm.release()
    assert backend.events == ["provision 512", "release", "provision 1024", "release"]


def test_without_a_machine_there_is_nothing_to_ask(vm: VM) -> None:
    assert vm.running is None
    with pytest.raises(BackendError, match="no machine behind this handle"):
        vm.reboot()


def test_a_failed_boot_is_remembered_per_shape(vm: VM, backend: Backend) -> None:
    backend.boots = ("panic",)
    with pytest.raises(BootError, match="the kernel panicked"):
        vm.use(SMALL, None)
    assert backend.events == ["provision 512", "release"]
    assert vm.failure is not None
    assert b"Kernel panic" in vm.failure.console
    for _ in range(2):
        with pytest.raises(BootError, match=r"did not boot: the kernel panicked \(see the first error\)$"):
            vm.use(SMALL, None)
    backend.boots = ("ready",)
    vm.use(BIG, None)
    assert vm.failure is None
    assert backend.events == ["provision 512", "release", "provision 1024"]


def test_a_host_that_has_no_room_is_remembered_too(vm: VM, backend: Backend) -> None:
    backend.refuses = True
    with pytest.raises(ProvisionError, match="no room"):
        vm.use(SMALL, None)
    with pytest.raises(ProvisionError, match="did not boot: no room"):
        vm.use(SMALL, None)
    assert backend.events == ["provision 512"]


def test_a_machine_that_was_released_is_booted_anew(vm: VM, backend: Backend) -> None:
    vm.use(SMALL, None)
    vm.release()
    vm.use(SMALL, None)
    assert backend.events.count("provision 512") == 2


@pytest.mark.parametrize("act", [VM.reboot, VM.start])
def test_after_a_failed_reboot_there_is_another_machine(vm: VM, backend: Backend, act: Callable[[VM], None]) -> None:
    backend.boots = ("ready", "panic")
    vm.use(SMALL, None)
    name = vm.name
    with pytest.raises(BootError):
        act(vm)
    assert vm.running is not None
    assert isinstance(vm.trouble, BootError)
    vm.use(SMALL, None)
    assert vm.name != name
    with pytest.raises(BootError):
        act(vm)
    with pytest.raises(BootError, match=r"the image brought down 2 machines, and gets no other: the kernel panicked"):
        vm.use(SMALL, None)
    assert backend.events.count("provision 512") == 2


def test_a_machine_that_dies_is_replaced(vm: VM, backend: Backend, heard: Heard) -> None:
    backend.answers = (Answer("panic", prints="[ 1.0] Kernel panic - not syncing: x\n"),)
    vm.use(SMALL, None)
    name = vm.name
    assert vm.look() is None
    vm.control("panic")
    assert isinstance(vm.look(), CrashError)
    assert heard == [(Trouble.PANIC, "the guest is in trouble: panic: [ 1.0] Kernel panic - not syncing: x")]
    assert [finding.kind for finding in vm.findings()] == [Trouble.PANIC]
    vm.use(SMALL, None)
    assert vm.name != name
    assert vm.trouble is None
    assert vm.findings() == []


def test_what_did_not_kill_it_does_not_replace_it(vm: VM, backend: Backend, heard: Heard) -> None:
    backend.answers = (Answer("eat", prints="[ 1.0] Out of memory: Killed process 1\n"),)
    vm.use(SMALL, None)
    name = vm.name
    vm.control("eat")
    assert vm.look() is None
    vm.use(SMALL, None)
    assert vm.name == name
    assert [kind for kind, _ in heard] == [Trouble.OOM]


def test_what_a_boot_prints_is_found_and_ends_nothing(vm: VM, backend: Backend, heard: Heard) -> None:
    backend.console = "[ 1.0] Out of memory: Killed process 1\n"
    vm.use(SMALL, None)
    vm.reboot()
    assert [finding.kind for finding in vm.findings()] == [Trouble.OOM, Trouble.OOM]
    assert vm.look() is None
    assert heard == []


def test_the_laboratory_may_lose_some_machines(vm: VM, backend: Backend) -> None:
    backend.answers = (Answer("kill", loses="QEMU was ended by signal 9"),)
    for _ in range(3):
        vm.use(SMALL, None)
        with pytest.raises(GuestError):
            vm.control("kill", Deadline.after(0.01))
        assert isinstance(vm.look(), MachineLostError)
    vm.use(SMALL, None)
    with pytest.raises(GuestError):
        vm.control("kill", Deadline.after(0.01))
    with pytest.raises(MachineLostError, match="the laboratory lost 4 machines, and gets no other: QEMU was ended"):
        vm.use(SMALL, None)
    assert backend.events.count("provision 512") == 4
    # Another shape is another matter.
    vm.use(BIG, None)


def test_a_machine_that_was_switched_off_is_replaced(vm: VM, backend: Backend) -> None:
    vm.use(SMALL, None)
    for _ in range(3):
        vm.stop()
        assert vm.look() is None
        vm.use(SMALL, None)
    assert backend.events.count("provision 512") == 4


def test_a_condemned_machine_is_replaced_and_a_failure_forgotten(vm: VM, backend: Backend) -> None:
    vm.use(SMALL, None)
    for _ in range(5):
        vm.condemn()
        vm.use(SMALL, None)
    backend.refuses = True
    vm.condemn()
    with pytest.raises(ProvisionError):
        vm.use(SMALL, None)
    backend.refuses = False
    vm.condemn()
    vm.use(SMALL, None)
    assert vm.failure is None


def test_a_guest_that_answers_is_not_in_question(vm: VM, backend: Backend) -> None:
    backend.answers = (Answer(":"),)
    assert vm.question() is None
    vm.use(SMALL, None)
    assert vm.question() is None


def test_a_guest_that_does_not_answer_hangs(vm: VM, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_LAST_CHANCE_SECONDS", 0.1)
    backend.answers = (Answer(":", hang=True),)
    vm.use(SMALL, None)
    found = vm.question()
    assert isinstance(found, CrashError)
    assert found.brief.startswith("the guest hangs: ")
    assert vm.trouble is found


def test_a_lost_machine_is_not_asked(vm: VM, backend: Backend) -> None:
    backend.answers = (Answer("kill", loses="the host's disk is full"),)
    vm.use(SMALL, None)
    with pytest.raises(GuestError):
        vm.control("kill", Deadline.after(0.01))
    found = vm.question()
    assert isinstance(found, MachineLostError)
    assert found.blame is Blame.LAB


def test_what_is_under_way_can_be_interrupted(vm: VM) -> None:
    told: list[BootcTestError] = []
    error = CrashError("dead")
    with vm.when_interrupted(told.append):
        vm.interrupt(error)
    vm.interrupt(error)
    assert told == [error]


def test_a_timeline_of_it_all(vm: VM) -> None:
    vm.use(SMALL, None)
    vm.reboot()
    vm.release()
    name = "m-1"
    assert [text for _, text in vm.timeline.events()] == [
        "a machine is made",
        f"{name} is started",
        f"{name} is ready",
        f"{name} is rebooted",
        f"{name} is ready",
        f"{name} is ended",
    ]


def test_those_who_are_connected_hear_of_each_boot(vm: VM) -> None:
    heard: list[str] = []
    vm.use(SMALL, None)
    with vm.after_each_boot(lambda: heard.append(vm.name)):
        vm.reboot()
        vm.stop()
        vm.start()
        vm.use(BIG, None)
    vm.reboot()
    assert len(heard) == 3
    assert heard[2] != heard[1]


def test_what_the_backend_lacks(vm: VM, tmp_path: Path) -> None:
    vm.use(SMALL, None)
    with pytest.raises(LackingError, match="the backend fake has no display"):
        vm.screenshot(tmp_path / "x.png")


def test_the_pool_has_one_handle_per_subject_and_loads_the_backend_when_it_is_needed(backend: Backend) -> None:
    loaded: list[int] = []

    def load() -> Backend:
        loaded.append(1)
        return backend

    vms = Pool(load, Terms(boot_seconds=1, missing=LackingError, listener=lambda vm, finding, error: None))
    assert vms.find("a") is None
    assert not loaded
    assert vms.vm("a") is vms.vm("a") is vms.find("a")
    assert vms.vm("b") is not vms.vm("a")
    assert vms.vm("a").subject == "a"
    assert loaded == [1]


class LastingMachine(FakeMachine):
    """A fake machine that says what it is asked about its being kept."""

    was_kept = False

    def keep(self) -> None:
        self.note("keep")

    def leave(self, login: HeldLogin | None) -> None:
        self.note("leave")

    def take_held_login(self) -> HeldLogin | None:
        return None

    def spoil(self) -> None:
        self.note("spoil")


class LastingBackend(Backend):
    """Machines that can be kept, and one that was."""

    def machine(self, name: str, log: str) -> LastingMachine:
        folder = self.folder / name
        folder.mkdir()
        return LastingMachine(name, Script(log=self.folder / log), folder)

    @contextmanager
    def provision(
        self, spec: MachineSpec, disk: GoldenDisk | None, waiting: Progress | None = SILENT
    ) -> Iterator[FakeMachine]:
        yield self.machine(f"new-{spec.memory_mib}", "log")

    @contextmanager
    def kept(self, spec: MachineSpec, disk: GoldenDisk | None) -> Iterator[FakeMachine | None]:
        if spec != SMALL:
            yield None
            return
        machine = self.machine("old-1", "log")
        machine.was_kept = True
        machine.start(Deadline.after(1))
        yield machine

    def log(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()


@pytest.fixture
def lasting(tmp_path: Path) -> LastingBackend:
    return LastingBackend(tmp_path)


def keeping(backend: LastingBackend, *, keep: bool = True) -> VM:
    terms = Terms(boot_seconds=1, missing=LackingError, listener=lambda vm, finding, error: None, keep=keep)
    return VM("image", backend, terms)


def test_a_machine_that_was_kept_is_used_and_kept(lasting: LastingBackend) -> None:
    vm = keeping(lasting)
    vm.use(SMALL, None)
    assert (vm.name, vm.was_kept) == ("old-1", True)
    vm.spoil()
    assert vm.close()
    assert lasting.log() == ["start old-1", "keep old-1", "spoil old-1", "leave old-1"]


def test_without_the_option_none_is_used_and_none_is_kept(lasting: LastingBackend) -> None:
    vm = keeping(lasting, keep=False)
    vm.use(SMALL, None)
    assert (vm.name, vm.was_kept) == ("new-512", False)
    assert not vm.close()
    assert lasting.log() == ["start new-512"]


def test_a_fresh_machine_is_none_that_was_kept(lasting: LastingBackend) -> None:
    vm = keeping(lasting)
    vm.use(SMALL, None)
    vm.condemn()
    vm.use(SMALL, None)
    assert (vm.name, vm.was_kept) == ("new-512", False)
    assert vm.close()
    assert lasting.log()[-3:] == ["start new-512", "keep new-512", "leave new-512"]


def test_a_machine_that_is_off_is_not_kept(lasting: LastingBackend) -> None:
    vm = keeping(lasting)
    vm.use(BIG, None)
    vm.stop()
    assert not vm.close()
    assert "leave new-1024" not in lasting.log()


def test_a_machine_that_died_is_not_kept(lasting: LastingBackend) -> None:
    vm = keeping(lasting)
    vm.use(BIG, None)
    with vm.console_log().open("a") as console:
        console.write("Kernel panic - not syncing: x\n")
    assert not vm.close()
    assert "leave new-1024" not in lasting.log()
