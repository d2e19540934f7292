"""Processes under the real supervisor, named as QEMU and its storage daemon are, and a small QMP peer."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import Blame, MachineLostError
from pytest_bootc.machine import vitals
from pytest_bootc.machine.process import Processes
from pytest_bootc.machine.qmp import QMPClient
from pytest_bootc.machine.vitals import Vitals

SLEEP = ["/bin/sleep", "300"]


def soon() -> Deadline:
    return Deadline.after(20)


class Host:
    """The processes of a machine, and its log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "qemu.log"
        self.processes = Processes()
        self.vitals = Vitals(self.log)

    def start(self, qemu: list[str] = SLEEP, storage: list[str] = SLEEP) -> None:
        plan = [
            {"name": name, "argv": argv, "log": str(self.log), "after": None}
            for name, argv in (("storage", storage), ("qemu", qemu))
        ]
        self.processes.start(plan, [], self.log, soon())

    def send(self, name: str, number: int) -> None:
        pid = self.processes.pid(name)
        assert pid is not None
        os.kill(pid, number)

    def lost(self, qmp: QMPClient | None = None) -> MachineLostError | None:
        return self.vitals.lost(self.processes, qmp)

    def loss(self, qmp: QMPClient | None = None) -> MachineLostError:
        """Why the machine is lost; waits for it."""
        return wait_until(lambda: self.lost(qmp), soon(), what="the machine to be lost")

    def has_ended(self) -> None:
        wait_until(lambda: self.processes.ended("qemu") is not None, soon(), what="QEMU to end")
        wait_until(lambda: self.processes.ended("storage") is not None, soon(), what="the storage daemon to end")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.processes.stop(soon())


class Monitor:
    """Speaks QMP as QEMU does; ``status`` is what query-status says, ``None``: nothing, ``""``: the end."""

    def __init__(self, path: Path) -> None:
        self.status: object = {"status": "running", "running": True}
        self.when_asked: Callable[[], None] = lambda: None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self.client = QMPClient.connect(path, soon())

    def say(self, event: str, **data: object) -> None:
        self._connection.sendall(json.dumps({"event": event, "data": data}).encode() + b"\r\n")

    def close(self) -> None:
        self.client.close()
        self._listener.close()
        self._thread.join(5)
        self._connection.close()

    def _serve(self) -> None:
        self._connection, _ = self._listener.accept()
        self._connection.sendall(b'{"QMP": {"version": {}, "capabilities": []}}\r\n')
        with self._connection.makefile("rb") as lines:
            for line in lines:
                request = json.loads(line)
                answer: object = {}
                if request["execute"] != "qmp_capabilities":
                    self.when_asked()
                    answer = self.status
                if answer == "":
                    self._connection.shutdown(socket.SHUT_RDWR)
                elif answer is not None:
                    self._connection.sendall(json.dumps({"return": answer, "id": request["id"]}).encode() + b"\r\n")


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Monitor]:
    made = Monitor(tmp_path / "qmp")
    yield made
    made.close()


def test_a_machine_that_runs_is_not_lost(host: Host, monitor: Monitor) -> None:
    assert host.lost() is None
    host.start()
    assert host.lost() is None
    assert host.lost(monitor.client) is None
    assert host.vitals.questioned(host.processes, monitor.client, soon()) is None
    assert host.vitals.questioned(host.processes, None, soon()) is None


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGABRT, "SIGABRT"), (signal.SIGTERM, "SIGTERM")]
)
def test_qemu_is_ended_by_a_signal(host: Host, number: int, name: str) -> None:
    host.start()
    host.log.write_text("qemu: a bug of mine\n")
    host.send("qemu", number)
    loss = host.loss()
    assert loss.brief == f"the QEMU process was ended by signal {number:d} ({name})"
    assert loss.details == "qemu: a bug of mine\n"
    assert loss.blame is Blame.LAB


def test_qemu_is_ended_by_a_signal_without_a_name(host: Host) -> None:
    host.start()
    host.send("qemu", 40)
    assert host.loss().brief == "the QEMU process was ended by signal 40"


def test_qemu_gives_up(host: Host) -> None:
    host.start(qemu=["/bin/sh", "-c", "sleep 0.3; echo 'cannot allocate memory' >&2; exit 3"])
    loss = host.loss()
    assert (loss.brief, loss.details) == ("the QEMU process ended with status 3", "cannot allocate memory\n")


def test_the_storage_daemon_is_killed(host: Host) -> None:
    host.start()
    host.send("storage", signal.SIGKILL)
    assert host.loss().brief == f"the storage daemon of QEMU was ended by signal {signal.SIGKILL:d} (SIGKILL)"


def test_only_the_end_of_a_long_log_is_told(host: Host) -> None:
    host.start()
    host.log.write_bytes(b"x" * 5000 + b"\xff the end\n")
    host.send("qemu", signal.SIGKILL)
    details = host.loss().details
    assert len(details) == vitals._SHOWN_LOG
    assert details.endswith("x� the end\n")


def test_a_log_that_is_gone_hides_nothing(host: Host) -> None:
    host.start()
    host.log.unlink()
    host.send("qemu", signal.SIGKILL)
    loss = host.loss()
    assert (loss.brief[:16], loss.details) == ("the QEMU process", "")


def test_a_guest_that_powers_off_is_not_lost(host: Host) -> None:
    host.start(qemu=["/bin/sleep", "0.3"])
    host.has_ended()
    assert host.processes.ended("qemu") == 0
    assert host.processes.ended("storage") == -signal.SIGTERM
    assert host.lost() is None


def test_what_was_ended_on_purpose_is_not_lost(host: Host, monitor: Monitor) -> None:
    host.start()
    host.vitals.expect_the_end()
    host.send("qemu", signal.SIGKILL)
    host.has_ended()
    monitor.status = None
    assert host.lost(monitor.client) is None
    assert host.vitals.questioned(host.processes, monitor.client, Deadline.after(0.2)) is None


def test_who_ends_it_on_purpose_asks_nothing(host: Host, monitor: Monitor) -> None:
    host.start()
    host.vitals.expect_the_end()
    monitor.status = None
    assert host.vitals.questioned(host.processes, monitor.client, Deadline.after(0.2)) is None


def stopped(host: Host, name: str) -> bool:
    return vitals._is_stopped(host.processes.pid(name))


@pytest.mark.parametrize(("name", "what"), [("qemu", "QEMU process"), ("storage", "storage daemon of QEMU")])
def test_a_process_that_is_stopped_for_long(host: Host, name: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vitals, "_STOPPED_SECONDS", 0.3)
    host.start()
    host.send(name, signal.SIGSTOP)
    wait_until(lambda: stopped(host, name), soon(), what="the process to stop")
    assert host.lost() is None
    assert host.loss().brief == f"the {what} was stopped by a signal (SIGSTOP)"
    host.send(name, signal.SIGCONT)
    wait_until(lambda: not stopped(host, name), soon(), what="the process to go on")
    assert host.lost() is None


def test_processes_that_go_on_are_not_lost(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vitals, "_STOPPED_SECONDS", 0.3)
    host.start()
    for _ in range(3):
        host.send("qemu", signal.SIGSTOP)
        wait_until(lambda: stopped(host, "qemu"), soon(), what="QEMU to stop")
        assert host.lost() is None
        host.send("qemu", signal.SIGCONT)
        wait_until(lambda: not stopped(host, "qemu"), soon(), what="QEMU to go on")
        Deadline.after(20).pause(0.2)
        assert host.lost() is None


def test_a_pause_by_ctrl_z_is_shorter_than_what_counts() -> None:
    assert 1.0 <= vitals._STOPPED_SECONDS <= 3.0  # a test has to end within five seconds


def test_a_name_with_parentheses_is_not_taken_for_a_state(host: Host) -> None:
    program = host.folder / "a) T (b"
    shutil.copy("/bin/sleep", program)
    host.start(qemu=[str(program), "300"])
    pid = host.processes.pid("qemu")
    wait_until(lambda: "T (b" in Path(f"/proc/{pid}/stat").read_text(), soon(), what="the program to run")
    assert not stopped(host, "qemu")
    host.send("qemu", signal.SIGSTOP)
    wait_until(lambda: stopped(host, "qemu"), soon(), what="the program to stop")
    host.send("qemu", signal.SIGCONT)


def test_a_process_that_is_gone_is_not_stopped(host: Host) -> None:
    assert not vitals._is_stopped(None)
    host.start()
    host.send("qemu", signal.SIGKILL)
    host.has_ended()
    assert not stopped(host, "qemu")


@pytest.mark.parametrize(
    ("data", "brief"),
    [
        (
            {"operation": "write", "nospace": True, "reason": "x"},
            "write the disk of the guest: the host's disk is full",
        ),
        ({"operation": "read", "nospace": False, "reason": "EIO"}, "read the disk of the guest: EIO"),
        ({"action": "stop"}, "use the disk of the guest: an I/O error"),
    ],
)
def test_qemu_cannot_use_its_disk(host: Host, monitor: Monitor, data: dict[str, object], brief: str) -> None:
    host.start()
    monitor.say("RTC_CHANGE", offset=1)
    monitor.say("BLOCK_IO_ERROR", device="var", **data)
    loss = host.loss(monitor.client)
    assert loss.brief == f"QEMU cannot {brief}"
    assert loss.resolution == "make room on the disk of the cache"
    assert loss.blame is Blame.LAB


@pytest.mark.parametrize(
    ("reason", "lost"), [("host-signal", True), ("guest-shutdown", False), ("host-qmp-quit", False), (None, False)]
)
def test_why_qemu_ends(host: Host, monitor: Monitor, reason: str | None, lost: bool) -> None:  # noqa: FBT001
    host.start()
    monitor.say("SHUTDOWN", **({"guest": not lost, "reason": reason} if reason else {}))
    # The answer comes behind the event.
    monitor.client.execute("query-status", deadline=soon())
    loss = host.lost(monitor.client)
    assert (loss.brief if loss else None) == ("QEMU was ended by a signal" if lost else None)


def test_events_without_data(host: Host, monitor: Monitor) -> None:
    host.start()
    monitor._connection.sendall(b'{"event": "BLOCK_IO_ERROR"}\r\n')
    assert host.loss(monitor.client).brief == "QEMU cannot use the disk of the guest: an I/O error"


@pytest.mark.parametrize("word", ["internal-error", "io-error", "paused"])
def test_qemu_says_that_the_guest_does_not_run(host: Host, monitor: Monitor, word: str) -> None:
    host.start()
    host.log.write_text("KVM internal error. Suberror: 1\n")
    monitor.status = {"status": word, "running": False}
    loss = host.vitals.questioned(host.processes, monitor.client, soon())
    assert loss is not None
    assert (loss.brief, loss.details) == (f"QEMU has stopped the guest: {word}", "KVM internal error. Suberror: 1\n")
    assert host.lost(monitor.client) is None


@pytest.mark.parametrize("status", [{"status": "shutdown"}, {"status": "guest-panicked"}, {}, [], "running"])
def test_what_else_qemu_says_of_the_guest_is_no_loss(host: Host, monitor: Monitor, status: object) -> None:
    host.start()
    monitor.status = status
    assert host.vitals.questioned(host.processes, monitor.client, soon()) is None


def test_qemu_answers_nothing(host: Host, monitor: Monitor) -> None:
    host.start()
    monitor.status = None
    loss = host.vitals.questioned(host.processes, monitor.client, Deadline.after(0.2))
    assert loss is not None
    assert loss.brief == "QEMU does not answer: QEMU did not answer to query-status: no answer within 0.2 s"
    assert loss.blame is Blame.LAB


def test_how_qemu_ended_is_told_a_moment_after_it_is_gone(host: Host, monitor: Monitor) -> None:
    host.start()
    monitor.status = ""
    pid = host.processes.pid("qemu")
    assert pid is not None
    threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()
    loss = host.vitals.questioned(host.processes, monitor.client, soon())
    assert loss is not None
    assert loss.brief == "the QEMU process was ended by signal 9 (SIGKILL)"


def test_qemu_is_gone_while_it_is_asked(host: Host, monitor: Monitor) -> None:
    host.start()
    monitor.status = ""
    loss = host.vitals.questioned(host.processes, monitor.client, soon())
    assert loss is not None
    assert loss.brief == "QEMU does not answer: QEMU did not answer to query-status: it is gone"


def test_the_death_of_qemu_says_more_than_its_silence(host: Host, monitor: Monitor) -> None:
    host.start()
    host.send("qemu", signal.SIGKILL)
    host.has_ended()
    monitor.status = ""
    loss = host.vitals.questioned(host.processes, monitor.client, soon())
    assert loss is not None
    assert loss.brief.startswith("the QEMU process was ended by signal 9")


def test_qemu_dies_while_it_is_asked(host: Host, monitor: Monitor) -> None:
    def die() -> None:
        host.send("qemu", signal.SIGABRT)
        host.has_ended()

    host.start()
    monitor.when_asked = die
    monitor.status = ""
    loss = host.vitals.questioned(host.processes, monitor.client, soon())
    assert loss is not None
    assert loss.brief == "the QEMU process was ended by signal 6 (SIGABRT)"


def test_a_guest_that_powered_off_is_not_asked(host: Host, monitor: Monitor) -> None:
    host.start(qemu=["/bin/sleep", "0.3"])
    host.has_ended()
    monitor.status = None
    assert host.vitals.questioned(host.processes, monitor.client, Deadline.after(0.2)) is None
