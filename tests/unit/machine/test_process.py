"""Processes under the real supervisor; small programs stand for QEMU and its storage daemon."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import Blame, ProvisionError
from pytest_bootc.machine import process
from pytest_bootc.machine.process import Processes

SLEEP = ["/bin/sleep", "300"]


def soon() -> Deadline:
    return Deadline.after(20)


class Machine:
    """Processes with a folder and a log."""

    def __init__(self, folder: Path) -> None:
        self.processes = Processes()
        self.folder = folder / "machine"
        self.folder.mkdir()
        self.log = folder / "log"

    def start(self, *argvs: list[str], deadline: Deadline | None = None, after: str | None = None) -> None:
        named = [
            {"name": f"p{number}", "argv": argv, "log": str(self.log), "after": after if number else None}
            for number, argv in enumerate(argvs)
        ]
        self.processes.start(named, [self.folder], self.log, deadline or soon())

    def alive(self) -> list[str]:
        """Those of which the kernel still knows."""
        names = []
        for name in ("p0", "p1"):
            pid = self.processes.pid(name)
            if pid is not None and Path(f"/proc/{pid}").exists():
                names.append(name)
        return names


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.processes.stop(soon())


def test_from_start_to_stop(machine: Machine) -> None:
    assert not machine.processes.running
    assert machine.processes.pid("p0") is None
    machine.start(SLEEP, SLEEP)
    assert machine.processes.running
    assert machine.alive() == ["p0", "p1"]
    assert machine.processes.ended("p1") is None
    machine.processes.stop(soon())
    assert not machine.processes.running
    assert machine.alive() == []
    assert (machine.processes.ended("p0"), machine.processes.ended("p1")) == (-signal.SIGTERM, -signal.SIGTERM)
    assert machine.folder.is_dir()
    machine.processes.stop(soon())


def test_an_end_is_noticed(machine: Machine) -> None:
    machine.start(SLEEP, SLEEP)
    pid = machine.processes.pid("p1")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not machine.processes.running, soon(), what="the supervisor to end")
    wait_until(lambda: machine.processes.ended("p0"), soon(), what="the other one's end to be told")
    assert machine.processes.ended("p1") == -signal.SIGKILL
    assert machine.alive() == []


def test_a_program_that_is_not_there(machine: Machine) -> None:
    with pytest.raises(ProvisionError) as caught:
        machine.start(SLEEP, ["/nowhere/qemu"])
    assert caught.value.brief.startswith("the machine could not be started: p1: ")
    assert "No such file" in caught.value.brief
    machine.processes.stop(soon())
    assert machine.alive() == []


def test_a_program_that_ends_at_once(machine: Machine) -> None:
    with pytest.raises(ProvisionError) as caught:
        machine.start(
            ["/bin/sh", "-c", "echo 'no such option: -x' >&2; exit 1"], SLEEP, after=str(machine.folder / "never")
        )
    assert caught.value.brief.startswith("the machine could not be started: p")
    assert caught.value.details == "no such option: -x\n"


def test_a_socket_that_does_not_come_in_time(machine: Machine) -> None:
    with pytest.raises(ProvisionError) as caught:
        machine.start(SLEEP, SLEEP, after=str(machine.folder / "never"), deadline=Deadline.after(0.5))
    assert caught.value.brief == "the machine was not started within 0.5 s"
    assert caught.value.blame is Blame.LAB
    machine.processes.stop(soon())
    assert machine.alive() == []
    assert machine.folder.is_dir()


@pytest.mark.parametrize(
    "script", ["raise SystemExit('no luck')", "import sys; sys.stdin.readline(); sys.exit('no luck')"]
)
def test_a_supervisor_that_ends_at_once(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    broken = tmp_path / "supervisor.py"
    broken.write_text(script)
    monkeypatch.setattr(process, "_SUPERVISOR", broken)
    with pytest.raises(ProvisionError) as caught:
        machine.start(SLEEP)
    assert caught.value.brief == "the machine could not be started: its supervisor ended"
    assert caught.value.details == "no luck\n"


def test_a_supervisor_that_ends_before_it_has_read_its_plan(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "supervisor.py"
    broken.write_text("raise SystemExit('no luck')")
    monkeypatch.setattr(process, "_SUPERVISOR", broken)
    with pytest.raises(ProvisionError, match="its supervisor ended"):
        machine.start(["/bin/echo", "more than fits into a pipe" * 10_000])


def test_a_supervisor_that_hangs_is_killed(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.start(SLEEP)
    supervisor = machine.processes._supervisor
    assert supervisor is not None
    os.kill(supervisor.pid, signal.SIGSTOP)
    machine.processes.stop(Deadline.after(0))
    assert supervisor.returncode == -signal.SIGKILL
    wait_until(lambda: machine.alive() == [] or None, soon(), what="its child to end")
