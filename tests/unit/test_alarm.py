from __future__ import annotations

import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pytest_bootc import alarm
from pytest_bootc.alarm import Alarm
from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import CrashError, MachineLostError

LONG = 20.0
NUMBER = alarm._SIGNAL
DEAD = CrashError("the guest is dead")


@pytest.fixture
def installed() -> Iterator[Alarm]:
    made = Alarm()
    with made.installed():
        yield made
    wait_until(lambda: not ringing(), Deadline.after(5), what="the alarm's thread to end")


def ringing() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "alarm"]


@contextmanager
def rung(alarm: Alarm, watched: object, error: BaseException = DEAD, after: float = 0.1) -> Iterator[None]:
    """Ring from another thread, a little later."""
    timer = threading.Timer(after, alarm.ring, (watched, error))
    timer.start()
    try:
        yield
    finally:
        timer.join()


def receive() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.recv(1)


def read_with_deadline() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.settimeout(LONG)
        one.recv(1)


def read_pipe() -> None:
    reader, writer = os.pipe()
    try:
        os.read(reader, 1)
    finally:
        os.close(reader)
        os.close(writer)


def wait_for_program() -> None:
    process = subprocess.Popen(["/bin/sleep", str(LONG)])
    try:
        process.wait()
    finally:
        process.kill()
        process.wait()


def run_program() -> None:
    subprocess.run(["/bin/sleep", str(LONG)], capture_output=True, check=True)


def wait_for_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def wait_for_thread() -> None:
    thread = threading.Thread(target=time.sleep, args=(3.0,), daemon=True)
    thread.start()
    thread.join()


def compute() -> None:
    until = time.monotonic() + LONG
    while time.monotonic() < until:
        pass


@pytest.mark.parametrize(
    "wait",
    [
        lambda: time.sleep(LONG),
        wait_for_lock,
        lambda: threading.Event().wait(LONG),
        lambda: threading.Event().wait(),
        lambda: queue.Queue[int]().get(),
        wait_for_thread,
        receive,
        read_with_deadline,
        read_pipe,
        lambda: select.select([], [], [], LONG),
        wait_for_program,
        run_program,
        compute,
    ],
    ids=[
        "sleep",
        "lock",
        "event-timeout",
        "event",
        "queue",
        "thread",
        "recv",
        "recv-timeout",
        "pipe",
        "select",
        "wait",
        "run",
        "compute",
    ],
)
def test_whatever_the_main_thread_waits_in_ends_with_the_error(installed: Alarm, wait: Callable[[], object]) -> None:
    began = time.monotonic()
    with pytest.raises(CrashError) as caught, rung(installed, "server"), installed.armed("server"):
        wait()
    assert caught.value is DEAD
    assert time.monotonic() - began < 2.0


def test_it_is_heard_again_and_again_by_a_test_that_catches_everything(installed: Alarm) -> None:
    began = time.monotonic()
    heard: list[BaseException] = []
    with rung(installed, "server"), installed.armed("server"):
        for _ in range(3):
            try:
                time.sleep(LONG)
            except Exception as error:  # noqa: BLE001
                heard.append(error)
    assert heard == [DEAD] * 3
    assert time.monotonic() - began < 4.0


@pytest.fixture
def insistent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm, "_AGAIN_SECONDS", 0.02)


@pytest.mark.usefixtures("insistent")
def test_nothing_is_heard_any_more_after_the_phase(installed: Alarm) -> None:
    with pytest.raises(CrashError), rung(installed, "server"), installed.armed("server"):
        time.sleep(LONG)
    time.sleep(0.2)
    installed.ring("server", DEAD)
    time.sleep(0.2)
    with installed.armed("server"):
        time.sleep(0.2)
    with installed.armed("other"):
        time.sleep(0.2)


@pytest.mark.usefixtures("insistent")
def test_each_phase_can_be_ended(installed: Alarm) -> None:
    for error in (DEAD, MachineLostError("QEMU was killed"), DEAD):
        with pytest.raises(type(error)) as caught, rung(installed, "server", error), installed.armed("server"):
            time.sleep(LONG)
        assert caught.value is error


@pytest.mark.usefixtures("insistent")
@pytest.mark.parametrize(("armed", "watched"), [("server", "desktop"), ("server", None), (None, None)])
def test_others_do_not_hear_it(installed: Alarm, armed: str | None, watched: str | None) -> None:
    with installed.armed(armed):
        installed.ring(watched, DEAD)
        time.sleep(0.2)
    assert ringing() == []


@pytest.mark.usefixtures("insistent")
def test_the_first_error_counts(installed: Alarm) -> None:
    heard: list[BaseException] = []
    with installed.armed("server"):
        for error in (DEAD, MachineLostError("too late")):
            try:
                installed.ring("server", error)
                time.sleep(LONG)
            except CrashError as error_:
                heard.append(error_)
    assert heard == [DEAD, DEAD]


def test_without_being_installed_it_does_nothing() -> None:
    made = Alarm()
    with made.armed("server"):
        made.ring("server", DEAD)
        assert ringing() == []
        time.sleep(0.2)
    with made.installed():
        pass
    with made.armed("server"):
        made.ring("server", DEAD)
        assert ringing() == []
        time.sleep(0.2)


def test_the_signals_handler_is_put_back() -> None:
    def mine(number: int, frame: object) -> None:
        raise AssertionError("not for me")

    before = signal.signal(NUMBER, mine)
    try:
        with Alarm().installed():
            assert signal.getsignal(NUMBER) is not mine
        assert signal.getsignal(NUMBER) is mine
        with pytest.raises(KeyError), Alarm().installed():
            raise KeyError
        assert signal.getsignal(NUMBER) is mine
    finally:
        signal.signal(NUMBER, before)


def test_a_thread_cannot_install_it() -> None:
    before = signal.getsignal(NUMBER)
    seen: list[object] = []

    def install() -> None:
        made = Alarm()
        with made.installed(), made.armed("server"):
            made.ring("server", DEAD)
            seen.append(signal.getsignal(NUMBER))

    thread = threading.Thread(target=install)
    thread.start()
    thread.join()
    assert seen == [before]
    assert ringing() == []


def test_a_signal_of_somebody_else_raises_nothing(installed: Alarm) -> None:
    signal.raise_signal(NUMBER)
    with installed.armed("server"):
        signal.raise_signal(NUMBER)


LATE = """
import signal, threading, time
from pytest_bootc import alarm
from pytest_bootc.errors import CrashError

def send_late(thread, number, send=signal.pthread_kill):
    on_its_way.set()
    time.sleep(0.3)
    send(thread, number)

on_its_way = threading.Event()
signal.pthread_kill = send_late
made = alarm.Alarm()
with made.installed():
    with made.armed("server"):
        threading.Thread(target=made.ring, args=("server", CrashError("dead"))).start()
        on_its_way.wait()
time.sleep(0.6)
print("alive")
"""


def test_an_alarm_at_the_very_end_ends_nothing_else() -> None:
    # A signal that nobody handles any more would end the process.
    ended = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "alive\n", "")
