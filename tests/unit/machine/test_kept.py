"""Which kept machine a run is offered, and what is said of the others; sleeping programs stand for QEMU."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import BackendError
from pytest_bootc.machine.inject import Identity
from pytest_bootc.machine.joining import Offer, offers
from pytest_bootc.machine.keeper import Keeper
from pytest_bootc.machine.kept import KEEPER, Kept, Record, find_kept, spoil, write_record
from pytest_bootc.machine.process import Keeping, Processes
from pytest_bootc.machine.rundir import RunFolder
from pytest_bootc.machine.warm import Boot
from pytest_bootc.model import DiskFile

DISK = DiskFile(Path("/images/disk.raw"), "raw", uefi=True)
RECORD = Record(
    image=str(DISK.path),
    digest="",
    key="this",
    memory_mib=512,
    cpus=1,
    emulator="QEMU 7",
    accelerator="tcg",
    sockets="",
    console="",
    up_since=0.0,
    runs=1,
    boot=Boot("id", 2.0, 0.0, None, Identity("a", "b", "c", "d")),
    endpoint=None,
)


def soon() -> Deadline:
    return Deadline.after(20)


class Machine:
    """A program that sleeps, under a supervisor, in folders as a machine has them."""

    def __init__(self, home: Path, record: Record) -> None:
        self.folder = RunFolder(home)
        self.processes = Processes()
        keeping = Keeping(self.folder.socket(KEEPER), 60.0, (), self.folder.lock)
        log = self.folder.file("log")
        process = {"name": "qemu", "argv": ["/bin/sleep", "300"], "log": str(log), "after": None}
        self.processes.start([process], [self.folder.sockets, self.folder.path], log, soon(), keeping)
        write_record(self.folder.path, replace(record, sockets=str(self.folder.sockets)))
        self.processes.keep()

    @property
    def name(self) -> str:
        return self.folder.name

    def leave(self) -> None:
        self.processes.leave()
        self.folder.leave()


Make = Callable[[Record], Machine]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "vms"


@pytest.fixture
def keep(home: Path) -> Iterator[Make]:
    """Make a machine, and leave it."""

    def make(record: Record) -> Machine:
        machine = Machine(home, record)
        machine.leave()
        return machine

    yield make
    for kept in find_kept(home):
        keeper = kept.call(soon())
        keeper.end()
        keeper.close()


def offered(home: Path, notes: list[str]) -> list[Offer]:
    made = list(offers(find_kept(home), "this", DISK, notes))
    for offer in made:
        offer.keeper.close()
        for descriptor in offer.keeper.descriptors:
            os.close(descriptor)
    return made


def test_the_same_is_offered(home: Path, keep: Make) -> None:
    machine = keep(RECORD)
    notes: list[str] = []
    (offer,) = offered(home, notes)
    assert offer.kept == Kept(home / machine.name, replace(RECORD, sockets=str(machine.folder.sockets)))
    assert offer.keeper.told == [{"event": "started", "name": "qemu", "pid": machine.processes.pid("qemu")}]
    assert notes == []


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (replace(RECORD, digest="sha256:0"), "is of another image (sha256:0)"),
        (replace(RECORD, key="that"), "is another kind of machine"),
    ],
)
def test_what_differs_is_told_and_left_alone(home: Path, keep: Make, record: Record, why: str) -> None:
    machine = keep(record)
    notes: list[str] = []
    assert offered(home, notes) == []
    name = machine.name
    assert notes == [f"kept machine {name} {why}: not used; `pytest-bootc vm stop {name}` ends it"]
    assert [kept.name for kept in find_kept(home)] == [name]


def test_of_other_images_nothing_is_said(home: Path, keep: Make) -> None:
    keep(replace(RECORD, image="elsewhere", key="that"))
    notes: list[str] = []
    assert offered(home, notes) == []
    assert notes == []


def test_what_a_test_has_spoiled_is_ended(home: Path, keep: Make) -> None:
    machine = keep(RECORD)
    spoil(machine.folder.path)
    notes: list[str] = []
    assert offered(home, notes) == []
    assert notes == [f"kept machine {machine.name} had been changed by a test that says so: ended"]
    assert find_kept(home) == []
    assert not machine.folder.path.exists()


def test_what_another_one_uses_is_told_and_the_next_is_offered(home: Path, keep: Make) -> None:
    used = Machine(home, RECORD)
    try:
        free = keep(RECORD)
        notes: list[str] = []
        assert [offer.kept.name for offer in offered(home, notes)] == [free.name]
        told = f"kept machine {used.name} is used by process {os.getpid()}: this run has one of its own"
        assert notes in ([told], [])  # by name, and so before or behind the free one
    finally:
        used.leave()


def test_the_record_is_for_this_user_only(home: Path, keep: Make) -> None:
    machine = keep(RECORD)
    status = (machine.folder.path / "kept.json").stat()
    assert stat.S_IMODE(status.st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "{}", '{"schema": 0}', "[1]"])
def test_a_record_of_somebody_else_is_passed_over(home: Path, keep: Make, text: str) -> None:
    machine = keep(RECORD)
    record = machine.folder.path / "kept.json"
    before = record.read_text()
    record.write_text(text)
    assert find_kept(home) == []
    record.write_text(before)
    assert json.loads(before)["key"] == "this"


def test_processes_that_were_kept_are_owned_as_others_are(home: Path, keep: Make) -> None:
    machine = keep(RECORD)
    pid = machine.processes.pid("qemu")
    keeper = Keeper(machine.folder.sockets / KEEPER, soon())
    wait_until(lambda: _has(keeper), soon(), what="the machine")
    joined = Processes()
    joined.join(keeper)
    folder = RunFolder.joined(machine.folder.path, machine.folder.sockets, keeper.descriptors[0])
    assert joined.running
    assert joined.pid("qemu") == pid
    joined.stop(soon())
    assert not joined.running
    assert joined.ended("qemu") == -15
    folder.remove()
    assert not machine.folder.path.exists()
    with pytest.raises(BackendError, match="nobody keeps a machine at"):
        Keeper(machine.folder.sockets / KEEPER, soon())


def _has(keeper: Keeper) -> bool:
    keeper.use()
    return True
