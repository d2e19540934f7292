"""A laboratory that fails while an image is judged: that is never the image's failure, and nothing stays behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from harness import Bed, Book, Case, Row, Running
from laboratory import Clock, no_free_port, registry_class, small_disk, used_kib

pytestmark = [pytest.mark.integration, pytest.mark.qemu]
slow = pytest.mark.slow
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make such a place")

# Every call of the test adds a line to a file; the last one that is broken waits to be.
CALLS = """\
import os
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent

@pytest.fixture(scope="module")
def ending(vm):
    yield
    (HERE / "teardown").touch()
    if os.environ["RED_WAIT"] != "0":
        time.sleep(60)

def test_break(ssh, ending):
    with (HERE / "call").open("a") as calls:
        calls.write("call\\n")
    ssh.succeed("sleep " + os.environ["RED_WAIT"], timeout=600)
    assert ssh.succeed("echo well").strip() == "well"
"""
PHASES = ("pull", "build", "boot", "call", "teardown")
GOOD = {"test_break": "pass"}
LAB = {"test_break": "infra"}


def called(bed: Bed, times: int) -> bool:
    """Whether the inner test was called so often."""
    file = bed.work / "call"
    return file.exists() and len(file.read_text().splitlines()) >= times


def reached(bed: Bed, phase: str) -> Callable[[], object]:
    """Whether an inner run has come to a phase, by what it makes on disk."""
    return {
        "pull": lambda: list(bed.home.glob("layers/*/.*.building")),
        "build": lambda: list(bed.home.glob("disks/*/.*.building")),
        "boot": lambda: list(bed.home.glob("vms/vm-*/console.log")),
        "call": (bed.work / "call").exists,
        "teardown": (bed.work / "teardown").exists,
    }[phase]


def send(number: signal.Signals, *, times: int) -> Callable[[Running], None]:
    """Send a signal to QEMU in each of the first calls."""

    def act(running: Running) -> None:
        for call in range(1, times + 1):
            running.wait_for(partial(called, running.bed, call), f"call {call} of the test")
            os.kill(running.qemu(), number)

    return act


QEMU = [
    Case(
        f"QEMU {word}, {often}",
        f"{number.name} to QEMU in {'the first' if times == 1 else 'each'} try of a test",
        tests=CALLS,
        status=0 if times == 1 else 10,
        states=GOOD if times == 1 else LAB,
        quote=rf"{'run once more' if times == 1 else 'infra'}: \S*test_break\S* .*{number.name}",
        short=(word, times) == ("killed", 1),
    )
    for word, number in (("killed", signal.SIGKILL), ("frozen", signal.SIGSTOP), ("aborted", signal.SIGABRT))
    for often, times in (("once", 1), ("each time", 2))
]
_SIGNALS = {"killed": signal.SIGKILL, "frozen": signal.SIGSTOP, "aborted": signal.SIGABRT}


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name, marks=() if case.short else slow) for case in QEMU])
def test_qemu_fails(case: Case, book: Book) -> None:
    word = case.name.split()[1].strip(",")
    book.judge(case, send(_SIGNALS[word], times=1 if case.status == 0 else 2), RED_WAIT="10")


@pytest.mark.parametrize("phase", [pytest.param(phase, marks=() if phase == "boot" else slow) for phase in PHASES])
def test_pytest_is_killed(phase: str, bed: Bed, book: Book) -> None:
    """Its machine is gone in seconds, and the next run is good and leaves nothing at all."""
    began = time.monotonic()
    if phase in ("pull", "build"):
        bed.use_fresh_cache()
    with bed.run(book.image("server"), CALLS, RED_WAIT="2" if phase == "teardown" else "60") as running:
        running.wait_for(reached(bed, phase), phase)
        running.process.kill()
        status = running.end().status
    left = bed.await_nothing(of_machines_only=True)
    with bed.run(book.image("server"), CALLS, RED_WAIT="0") as running:
        again = running.end()
    left += bed.await_nothing()
    right = (status, again.status, left) == (-signal.SIGKILL, 0, [])
    seconds = time.monotonic() - began
    book.note(Row(f"pytest killed: {phase}", f"SIGKILL to pytest during {phase}", not left, right, seconds))
    assert left == []
    assert status == -signal.SIGKILL
    assert (again.status, set(again.states.values())) == (0, {"pass"}), again.text


@slow
@pytest.mark.parametrize("phase", PHASES)
def test_a_worker_is_killed(phase: str, bed: Bed, book: Book) -> None:
    """Another one takes over; the test that died with it was not judged."""
    case = Case(
        f"worker killed: {phase}",
        f"SIGKILL to the worker of xdist during {phase}",
        tests=CALLS,
        options=("-n", "1"),
        status=10,
        states={},
        quote=r"(?i)worker 'gw0' crashed",
        fresh_cache=phase in ("pull", "build"),
        half_built=True,
    )

    def act(running: Running) -> None:
        running.wait_for(reached(bed, phase), phase)
        os.kill(running.worker(), signal.SIGKILL)

    book.judge(case, act, RED_WAIT="2" if phase == "teardown" else "60")


FILL = """\
import os
from pathlib import Path

import pytest

def fill():
    with (Path(os.environ["XDG_CACHE_HOME"]) / "filler").open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 20))
                file.flush()
        except OSError:
            pass

@pytest.fixture(scope="module")
def ending(vm):
    yield
    if os.environ["RED_WHEN"] == "teardown":
        fill()

def test_break(ssh, ending):
    ssh.succeed("true")
    if os.environ["RED_WHEN"] == "call":
        fill()
        ssh.succeed("dd if=/dev/urandom of=/var/written bs=1M count=100 conv=fsync", timeout=120)
"""
# Beside what the cache holds already, in KiB: what is there is too little in this phase, and enough until then.
ROOM = {"build": 4096, "boot": 600, "call": 400_000, "teardown": 400_000}


@needs_root
@pytest.mark.parametrize("phase", [pytest.param(phase, marks=() if phase == "pull" else slow) for phase in PHASES])
def test_the_hosts_disk_gets_full(phase: str, bed: Bed, book: Book) -> None:
    case = Case(
        f"disk full: {phase}",
        f"the cache's disk is full during {phase}",
        tests=FILL,
        status=0 if phase == "teardown" else 10,
        states=GOOD if phase == "teardown" else LAB,
        quote="passed" if phase == "teardown" else r"(?i)the disk is full|No space left|disk.* full",
        short=phase == "pull",
    )
    bed.use_fresh_cache()
    if phase != "pull":  # what has been made before is copied to the small disk
        with bed.run(book.image("server"), "def test_disk(golden_disk):\n    assert golden_disk\n") as running:
            assert running.end().status == 0
    if phase == "build":
        bed.forget_disks()
    kib = 100 << 10 if phase == "pull" else used_kib(bed.cache) + ROOM[phase]
    content = None if phase == "pull" else bed.cache
    with small_disk(bed.cache, bed.path / "small", kib=kib, content=content) as bed.place:
        book.judge(case, RED_WHEN=phase)


@slow
@needs_root
def test_the_disk_of_evidence_is_full(bed: Bed, book: Book) -> None:
    """A failure of the image is not hidden by evidence that cannot be kept."""
    case = Case(
        "disk full: evidence",
        "a test of the image fails, and there is no room for its evidence",
        tests="def test_break(ssh):\n    ssh.succeed('echo the last words; false')\n",
        options=(f"--evidence-dir={bed.path}/evidence",),
        states={"test_break": "fail"},
        quote=r"evidence could not be kept",
    )
    with small_disk(bed.path / "evidence", bed.path / "small", kib=4) as bed.place:
        book.judge(case)


@slow
def test_the_hosts_memory_is_short(book: Book) -> None:
    case = Case(
        "RAM short",
        "a machine of more memory than the host has",
        tests=CALLS,
        options=("--vm-memory=400G",),
        status=10,
        states=LAB,
        quote=r"it needs 40\d\.\d GiB",
    )
    book.judge(case, RED_WAIT="0")


@slow
@needs_root
def test_no_port_is_free(bed: Bed, book: Book) -> None:
    case = Case(
        "port stolen",
        "no port of the host is free for the guest's sshd",
        tests=CALLS,
        status=10,
        states=LAB,
        quote=r"(?i)host forwarding rule",
    )
    with no_free_port() as bed.place:
        book.judge(case, RED_WAIT="0")


@slow
def test_the_registry_dies_in_a_pull(bed: Bed, book: Book, layouts: dict[str, Path], tmp_path: Path) -> None:
    registry = registry_class()(tmp_path)
    registry.start()
    try:
        (described,) = json.loads((layouts["server"] / "index.json").read_text())["manifests"]
        name = registry.push(layouts["server"], described, "server", "v1")
        case = Case(
            "registry gone",
            "the registry is killed in the middle of a pull",
            image=name,
            tests=CALLS,
            status=10,
            states=LAB,
            quote=registry.host,
            fresh_cache=True,
        )

        def act(running: Running) -> None:
            running.wait_for(reached(bed, "pull"), "a pull")
            registry.stop()

        book.judge(case, act, RED_WAIT="0")
    finally:
        registry.stop()


@slow
@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_the_hosts_clock_jumps(bed: Bed, book: Book) -> None:
    """A day ahead while the machine boots, and back while a command is waited for."""
    clock = Clock(bed.path)
    case = Case(
        "clock jump",
        "the host's clock jumps a day ahead and back",
        tests=CALLS,
        status=0,
        states=GOOD,
        quote="1 passed",
    )

    def act(running: Running) -> None:
        running.wait_for(reached(bed, "boot"), "the boot")
        clock.jump(86_400)
        running.wait_for(reached(bed, "call"), "the call")
        clock.jump(-86_400)

    book.judge(case, act, RED_WAIT="10", **clock.environment)
