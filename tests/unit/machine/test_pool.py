from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_bootc.errors import BackendError, BootError, ProvisionError
from pytest_bootc.machine.fake import FakeMachine, Script
from pytest_bootc.machine.pool import VM, Pool
from pytest_bootc.model import GoldenDisk, MachineSpec

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

    @contextmanager
    def provision(self, spec: MachineSpec, disk: GoldenDisk | None) -> Iterator[FakeMachine]:
        self.events.append(f"provision {spec.memory_mib}")
        if self.refuses:
            raise ProvisionError("no room")
        yield FakeMachine(f"m{len(self.events)}", Script(boots=self.boots), self.folder)
        self.events.append("release")


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    return Backend(tmp_path)


@pytest.fixture
def vm(backend: Backend) -> VM:
    return VM(backend, boot_seconds=0.05, missing=LackingError)


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
def test_a_failed_reboot_ends_the_machine(vm: VM, backend: Backend, act: Callable[[VM], None]) -> None:
    backend.boots = ("ready", "panic")
    vm.use(SMALL, None)
    with pytest.raises(BootError):
        act(vm)
    assert vm.running is None
    assert vm.failure is not None


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

    pool = Pool(load, boot_seconds=1, missing=LackingError)
    assert pool.find("a") is None
    assert not loaded
    assert pool.vm("a") is pool.vm("a") is pool.find("a")
    assert pool.vm("b") is not pool.vm("a")
    assert loaded == [1]
