"""The supervisor is run as what it is: a program that owns others, and ends them however its own owner ends."""

from __future__ import annotations

import json
import os
import signal
import socket
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


class Visitor:
    """Somebody who connects to the supervisor's socket."""

    def __init__(self, path: Path) -> None:
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(10)
        listening = lambda: self.connection.connect_ex(str(path)) == 0  # noqa: E731
        wait_until(listening, Deadline.after(10), what="the socket")
        self.descriptors: list[int] = []
        self._rest = b""

    def say(self, word: str) -> None:
        self.connection.sendall(f"{word}\n".encode())

    def told(self) -> dict[str, object]:
        while b"\n" not in self._rest:
            chunk, descriptors, _, _ = socket.recv_fds(self.connection, 4096, 8)
            if not chunk:
                return {}
            self._rest += chunk
            self.descriptors += descriptors
        line, _, self._rest = self._rest.partition(b"\n")
        message: dict[str, object] = json.loads(line)
        return message

    def use(self) -> list[dict[str, object]]:
        self.say("use")
        messages = [self.told()]
        while messages[-1].get("event") not in ("yours", "busy", None):
            messages.append(self.told())
        return messages

    def close(self) -> None:
        self.connection.close()
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []


class Kept:
    """A supervisor whose processes can be kept, and whoever comes to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "machine"
        self.folder.mkdir()
        self.socket = folder / "keeper"
        self.lock = (folder / "owner").open("w")
        self.port = socket.socket(socket.AF_UNIX)
        self.port.settimeout(10)
        self.port.bind(str(folder / "port"))
        self.port.listen()
        self.visitors: list[Visitor] = []
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *argvs: list[str], idle: float = 60) -> list[int]:
        log = str(self.folder.parent / "log")
        plan = {
            "processes": [{"name": f"p{i}", "argv": argv, "log": log, "after": None} for i, argv in enumerate(argvs)],
            "folders": [str(self.folder)],
            "kept": {"socket": str(self.socket), "idle": idle, "hold": [self.port.getsockname()],
                     "lock": self.lock.fileno()},
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            pass_fds=[self.lock.fileno()],
        )  # fmt: skip
        self.say(json.dumps(plan))
        assert self.process.stdout is not None
        return [int(json.loads(self.process.stdout.readline())["pid"]) for _ in argvs]

    def say(self, line: str) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def let_go(self) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.close()

    def visitor(self) -> Visitor:
        self.visitors.append(Visitor(self.socket))
        return self.visitors[-1]

    def ended(self) -> bool:
        assert self.process is not None
        return self.process.wait(10) == 0

    def close(self) -> None:
        for visitor in self.visitors:
            visitor.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                assert pipe is not None
                pipe.close()
        self.port.close()
        self.lock.close()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    yield made
    made.close()


def test_what_nobody_wanted_to_keep_ends_with_its_owner(kept: Kept) -> None:
    pids = kept.start(SLEEP, SLEEP)
    kept.let_go()
    assert kept.ended()
    assert gone(pids)
    assert not kept.folder.exists()


def test_what_is_kept_outlives_its_owner_and_gets_another_one(kept: Kept) -> None:
    pids = kept.start(SLEEP, SLEEP)
    kept.say("keep")
    kept.let_go()
    held, _ = kept.port.accept()
    messages = kept.visitor().use()
    assert messages[:2] == [
        {"event": "started", "name": "p0", "pid": pids[0]}, {"event": "started", "name": "p1", "pid": pids[1]}
    ]  # fmt: skip
    assert messages[2] == {"event": "yours"}
    lock, port = kept.visitors[0].descriptors
    assert os.path.samestat(os.fstat(lock), os.fstat(kept.lock.fileno()))
    os.write(port, b"hello")
    assert held.recv(5) == b"hello"
    held.close()
    assert all(alive(pid) for pid in pids)
    assert kept.folder.is_dir()


def test_a_login_is_kept_for_the_next_owner(kept: Kept) -> None:
    """The last that anybody leaves, once, and with its state; an earlier one is closed."""
    kept.start(SLEEP, SLEEP)
    kept.say("keep")
    ends = []
    for word in ("first", "second"):
        ours, theirs = socket.socketpair()
        ends.append(ours)
        visitor = kept.visitor()
        # In two pieces, as a stream may come.
        socket.send_fds(visitor.connection, [b"login st"], [theirs.fileno()])
        visitor.connection.sendall(f"ate of {word}\n".encode())
        theirs.close()
        visitor.say("visit")
        assert visitor.told()["event"] == "status"
    ends[0].settimeout(10)
    assert ends[0].recv(1) == b""
    kept.let_go()
    user = kept.visitor()
    assert user.use()[-1] == {"event": "yours", "login": "state of second"}
    os.write(user.descriptors[-1], b"hello")
    assert ends[1].recv(5) == b"hello"
    user.close()
    assert ends[1].recv(5) == b"", "nobody else has it"
    another = kept.visitor()
    wait_until(lambda: another.use()[-1] == {"event": "yours"}, Deadline.after(10), what="the first one to be gone")
    for end in ends:
        end.close()


def test_the_held_connection_is_the_owners_alone(kept: Kept) -> None:
    """Else a guest would believe that somebody listens, after the owner has gone."""
    kept.start(SLEEP)
    kept.say("keep")
    kept.let_go()
    held, _ = kept.port.accept()
    user = kept.visitor()
    user.use()
    user.close()
    held.settimeout(10)
    assert held.recv(1) == b""
    held.close()
    again, _ = kept.port.accept()
    again.close()


def test_it_ends_when_nobody_has_come_for_the_idle_time(kept: Kept) -> None:
    pids = kept.start(SLEEP, idle=0.5)
    kept.say("keep")
    kept.let_go()
    began = time.monotonic()
    assert kept.ended()
    assert time.monotonic() - began > 0.4
    assert gone(pids)
    assert not kept.folder.exists()


@pytest.mark.parametrize("word", ["use", "visit"])
def test_the_idle_time_begins_when_the_last_one_has_gone(kept: Kept, word: str) -> None:
    pids = kept.start(SLEEP, idle=0.5)
    kept.say("keep")
    guest = kept.visitor()
    guest.say("visit")
    guest.told()
    kept.let_go()
    other = kept.visitor()
    other.say(word)
    other.told()
    guest.close()
    assert kept.process is not None
    with pytest.raises(subprocess.TimeoutExpired):
        kept.process.wait(1.2)
    assert alive(pids[0])
    other.close()
    assert kept.ended()
    assert not kept.folder.exists()


def test_one_owner_at_a_time(kept: Kept) -> None:
    kept.start(SLEEP)
    kept.say("keep")
    early = kept.visitor()
    assert early.use() == [{"event": "busy", "pid": os.getpid()}]
    kept.let_go()
    first, second = kept.visitor(), kept.visitor()
    assert first.use()[-1] == {"event": "yours"}
    assert second.use() == [{"event": "busy", "pid": os.getpid()}]
    second.say("end")
    assert second.told() == {"event": "busy", "pid": os.getpid()}
    second.say("visit")
    assert second.told() == {"event": "status", "user": os.getpid(), "idle": 0.0}
    first.close()
    wait_until(lambda: second.use()[-1] == {"event": "yours"}, Deadline.after(10), what="the first one to be gone")


def test_anybody_may_end_what_nobody_owns(kept: Kept) -> None:
    pids = kept.start(SLEEP, SLEEP)
    kept.say("keep")
    kept.let_go()
    visitor = kept.visitor()
    wait_until(lambda: _says_nothing_of_an_owner(kept), Deadline.after(10), what="the owner to be gone")
    visitor.say("end")
    assert visitor.told() == {}
    assert gone(pids)
    assert kept.ended()
    assert not kept.folder.exists()


def _says_nothing_of_an_owner(kept: Kept) -> bool:
    visitor = kept.visitor()
    visitor.say("visit")
    return visitor.told()["user"] is None


def test_who_has_come_can_stop_all_and_has_the_folders_then(kept: Kept) -> None:
    pids = kept.start(SLEEP, SLEEP)
    kept.say("keep")
    kept.let_go()
    kept.port.accept()[0].close()
    user = kept.visitor()
    assert user.use()[-1] == {"event": "yours"}
    user.say("stop")
    assert [user.told()["name"] for _ in pids] == ["p1", "p0"]
    assert user.told() == {}
    assert kept.ended()
    assert kept.folder.is_dir()


def test_the_end_of_the_last_one_is_told_to_who_has_come(kept: Kept) -> None:
    pids = kept.start(SLEEP, SLEEP)
    kept.say("keep")
    kept.let_go()
    kept.port.accept()[0].close()
    user = kept.visitor()
    user.use()
    os.kill(pids[1], signal.SIGKILL)
    assert user.told() == {"event": "ended", "name": "p1", "status": -signal.SIGKILL}
    assert user.told() == {"event": "ended", "name": "p0", "status": -signal.SIGTERM}
    assert kept.ended()
    assert kept.folder.is_dir()


def test_without_an_owner_nothing_is_left_of_what_ends_by_itself(kept: Kept) -> None:
    pids = kept.start(SLEEP, SLEEP)
    kept.say("keep")
    kept.let_go()
    kept.port.accept()[0].close()
    os.kill(pids[1], signal.SIGKILL)
    assert kept.ended()
    assert not kept.folder.exists()
