"""The supervisor is run as what it is: a program that owns others, and ends them however its own owner ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.machine import supervisor

SLEEP = ["/bin/sleep", "300"]


class Owner:
    """A process that holds the supervisor's pipe."""

    def __init__(self, folder: Path, plan: dict[str, object]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(plan).encode() + b"\n")
        self.process.stdin.flush()

    def told(self) -> dict[str, object]:
        assert self.process.stdout is not None
        message: dict[str, object] = json.loads(self.process.stdout.readline())
        return message

    def pids(self, count: int) -> list[int]:
        messages = [self.told() for _ in range(count)]
        assert [message["event"] for message in messages] == ["started"] * count
        return [int(str(message["pid"])) for message in messages]

    def say(self, text: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def let_go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()


Start = Callable[..., Owner]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    owners: list[Owner] = []

    def begin(*argvs: list[str], after: str | None = None) -> Owner:
        folder = tmp_path / "machine"
        folder.mkdir(exist_ok=True)
        log = str(tmp_path / "log")
        processes = [
            {"name": f"p{number}", "argv": argv, "log": log, "after": after if number else None}
            for number, argv in enumerate(argvs)
        ]
        owners.append(Owner(tmp_path, {"processes": processes, "folders": [str(folder)]}))
        return owners[-1]

    yield begin
    for owner in owners:
        owner.process.kill()
        owner.process.wait()
        for pipe in (owner.process.stdin, owner.process.stdout):
            assert pipe is not None
            pipe.close()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids: list[int]) -> bool:
    wait_until(lambda: not any(alive(pid) for pid in pids), Deadline.after(10), what=f"{pids} to be gone")
    return True


def test_end_of_file_ends_all_and_removes_the_folders(start: Start, tmp_path: Path) -> None:
    owner = start(SLEEP, SLEEP)
    pids = owner.pids(2)
    owner.let_go()
    assert owner.process.wait(10) == 0
    assert gone(pids)
    assert not (tmp_path / "machine").exists()


def test_stop_ends_all_and_keeps_the_folders(start: Start, tmp_path: Path) -> None:
    owner = start(SLEEP, SLEEP)
    pids = owner.pids(2)
    owner.say(b"stop\n")
    # The last first: QEMU lets go of its disk before that goes.
    assert [owner.told()["name"] for _ in pids] == ["p1", "p0"]
    assert owner.process.wait(10) == 0
    assert gone(pids)
    assert (tmp_path / "machine").is_dir()


def test_the_end_of_the_last_one_ends_the_others(start: Start, tmp_path: Path) -> None:
    owner = start(SLEEP, ["/bin/sh", "-c", "exit 3"])
    pids = owner.pids(2)
    assert owner.told() == {"event": "ended", "name": "p1", "status": 3}
    assert owner.told() == {"event": "ended", "name": "p0", "status": -signal.SIGTERM}
    assert owner.process.wait(10) == 0
    assert gone(pids)
    assert (tmp_path / "machine").is_dir()


def test_the_end_of_another_one_is_told(start: Start) -> None:
    owner = start(SLEEP, SLEEP)
    first, second = owner.pids(2)
    os.kill(first, signal.SIGKILL)
    assert owner.told() == {"event": "ended", "name": "p0", "status": -signal.SIGKILL}
    assert alive(second)


def test_who_kills_the_supervisor_kills_its_children(start: Start) -> None:
    owner = start(SLEEP, SLEEP)
    pids = owner.pids(2)
    owner.process.kill()
    assert gone(pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_of_a_terminal_are_not_for_it(start: Start, number: signal.Signals) -> None:
    owner = start(SLEEP)
    (pid,) = owner.pids(1)
    owner.process.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        owner.process.wait(0.3)
    assert alive(pid)


def test_one_that_does_not_listen_is_killed(start: Start, tmp_path: Path) -> None:
    deaf = tmp_path / "deaf"
    owner = start(["/bin/sh", "-c", f"trap '' TERM; touch {deaf}; while :; do sleep 1; done"])
    pids = owner.pids(1)
    wait_until(deaf.exists, Deadline.after(10), what="the trap")
    owner.say(b"stop\n")
    assert owner.told() == {"event": "ended", "name": "p0", "status": -signal.SIGKILL}
    assert owner.process.wait(15) == 0
    assert gone(pids)


def test_a_program_that_cannot_be_started_is_told(start: Start) -> None:
    owner = start(SLEEP, ["/nowhere/qemu"])
    pids = owner.pids(1)
    message = owner.told()
    assert (message["event"], message["name"]) == ("failed", "p1")
    assert "No such file" in str(message["reason"])
    assert owner.process.wait(10) == 0
    assert gone(pids)


def test_a_process_waits_for_the_socket_before_it(start: Start, tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    marker = f"test -e {socket} && exec sleep 300 || exit 9"
    owner = start(
        ["/bin/sh", "-c", f"sleep 0.3; touch {socket}; exec sleep 300"], ["/bin/sh", "-c", marker], after=str(socket)
    )
    _, second = owner.pids(2)
    assert alive(second)


def test_an_owner_that_goes_while_it_starts_leaves_nothing(start: Start, tmp_path: Path) -> None:
    owner = start(SLEEP, SLEEP, after=str(tmp_path / "never"))
    pids = owner.pids(1)
    owner.let_go()
    assert owner.process.wait(10) == 0
    assert gone(pids)
    assert not (tmp_path / "machine").exists()


def test_kill_9_of_the_owner(tmp_path: Path) -> None:
    """The owner is a process of its own here, as pytest is: its death closes the pipe, and nothing else does."""
    folder = tmp_path / "machine"
    folder.mkdir()
    plan = {
        "processes": [{"name": "p0", "argv": SLEEP, "log": str(tmp_path / "log"), "after": None}],
        "folders": [str(folder)],
    }
    script = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-I', '-S', {supervisor.__file__!r}], stdin=subprocess.PIPE)\n"
        f"child.stdin.write({json.dumps(plan).encode()!r} + b'\\n')\n"
        "child.stdin.flush()\n"
        "time.sleep(300)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid = int(json.loads(owner.stdout.readline())["pid"])
        assert alive(pid)
        owner.kill()
        assert gone([pid])
        wait_until(lambda: not folder.exists(), Deadline.after(10), what="the folder to go")


def test_stop_may_come_before_it_has_begun(tmp_path: Path) -> None:
    """Plan and stop are read as one piece when it starts slowly."""
    marker = tmp_path / "started"
    process = {"name": "p0", "argv": ["/bin/touch", str(marker)], "log": str(tmp_path / "log"), "after": None}
    plan = json.dumps({"processes": [process], "folders": [str(tmp_path / "machine")]}).encode()
    (tmp_path / "machine").mkdir()
    done = subprocess.run(
        [sys.executable, "-I", "-S", supervisor.__file__], input=plan + b"\nstop\n", capture_output=True, timeout=20,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert not marker.exists()
    assert (tmp_path / "machine").is_dir()


def test_an_owner_that_goes_before_its_plan_is_whole(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", supervisor.__file__], input=b'{"processes": [', capture_output=True, timeout=20,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_long_plan_arrives_in_pieces(start: Start) -> None:
    owner = start(["/bin/sh", "-c", "exec sleep 300", *["x" * 5000] * 20], SLEEP)
    pids = owner.pids(2)
    assert all(alive(pid) for pid in pids)


def test_what_the_processes_say_is_in_their_log(start: Start, tmp_path: Path) -> None:
    owner = start(["/bin/sh", "-c", "echo out; echo err >&2; read line; echo $?"])
    owner.pids(1)
    assert owner.told() == {"event": "ended", "name": "p0", "status": 0}
    assert (tmp_path / "log").read_text() == "out\nerr\n1\n"


def test_the_first_that_ends_before_its_socket_is_there(start: Start, tmp_path: Path) -> None:
    owner = start(["/bin/sh", "-c", "exit 1"], SLEEP, after=str(tmp_path / "never"))
    began = time.monotonic()
    owner.pids(1)
    assert owner.told() == {"event": "failed", "name": "p1", "reason": f"{tmp_path}/never did not appear"}
    assert time.monotonic() - began < 10
    assert owner.process.wait(10) == 0
    assert (tmp_path / "machine").is_dir()


def test_nothing_of_ours_is_open_in_the_processes(start: Start, tmp_path: Path) -> None:
    """One that kept the pipe open would keep the supervisor from seeing its owner's end."""
    owner = start(SLEEP)
    (pid,) = owner.pids(1)

    def opened() -> list[int]:
        return sorted(int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir())

    # While it starts, the program itself opens its libraries and locales.
    wait_until(lambda: opened() == [0, 1, 2], Deadline.after(10), what="0, 1, 2", last=lambda: str(opened()))
    assert Path(f"/proc/{pid}/fd/0").readlink() == Path("/dev/null")
    assert Path(f"/proc/{pid}/fd/1").readlink() == tmp_path / "log"


def test_kill_9_of_the_supervisor_while_it_starts(start: Start, tmp_path: Path) -> None:
    owner = start(SLEEP, SLEEP, after=str(tmp_path / "never"))
    pids = owner.pids(1)
    owner.process.kill()
    assert gone(pids)
