"""RAM that several processes reserve at once; the host is made small by a file that says what it has."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import ProvisionError
from pytest_bootc.machine.memory import HostMemory
from pytest_bootc.machine.reservation import machines_that_fit, note_process, reserve, reserve_spare
from pytest_bootc.machine.rundir import RunFolder, living
from pytest_bootc.progress import SILENT, Silent

# Reserves what it is told, says so, and gives it back when it is told.
CLAIMANT = """
import sys
from contextlib import contextmanager
from pathlib import Path
from pytest_bootc.deadline import Deadline
from pytest_bootc.machine.memory import HostMemory
from pytest_bootc.machine.reservation import reserve
from pytest_bootc.machine.rundir import RunFolder

class Told:
    @contextmanager
    def stage(self, what, total=None):
        print(what, flush=True)
        yield

home, meminfo, mib = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
folder = RunFolder(home)
reserve(folder, mib, Deadline.after(60), Told(), HostMemory(meminfo, Path("/dev/null")))
print("granted", flush=True)
sys.stdin.readline()
folder.remove()
"""

# Many times so: what it held is written down after it got it, and before it gives it back.
CROWD = CLAIMANT.replace("sys.stdin.readline()", "note('+'); Deadline.after(0.05).pause(1); note('-')").replace(
    "home, meminfo",
    """
def note(sign):
    with open(sys.argv[4], "a") as log:
        log.write(sign + "\\n")
home, meminfo""",
)

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def host(tmp_path: Path) -> HostMemory:
    """It has 3000 MiB for machines: 4000, of which 1000 are in use or stay free."""
    memory = HostMemory(tmp_path / "meminfo", Path("/dev/null"))
    memory.meminfo.write_text(f"MemTotal: {4000 << 10} kB\nMemAvailable: {3512 << 10} kB\n")
    return memory


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "vms"
    with living(tmp_path / "vms"):
        pass  # what the killed have left is gone now


@pytest.fixture
def start(home: Path, host: HostMemory) -> Iterator[Start]:
    """Start a process that reserves so many MiB."""
    started = []

    def run(mib: int, script: str = CLAIMANT, *arguments: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", script, home, host.meminfo, str(mib), *arguments]
        started.append(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def folder(home: Path) -> Iterator[RunFolder]:
    made = RunFolder(home)
    yield made
    made.remove()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def give_back(process: subprocess.Popen[str]) -> None:
    process.communicate("\n")
    assert process.returncode == 0


class Listening(Silent):
    """Remembers what was announced."""

    def __init__(self) -> None:
        self.said: list[str] = []

    @contextmanager
    def stage(self, what: str, total: int | None = None) -> Iterator[Listening]:
        self.said.append(what)
        yield self


def test_what_fits_is_granted_at_once(folder: RunFolder, host: HostMemory) -> None:
    listener = Listening()
    reserve(folder, 3000, Deadline.after(0), listener, host)
    assert listener.said == []


def test_who_waits_says_so_and_gets_it_when_it_is_given_back(start: Start) -> None:
    first = start(2000)
    assert said(first) == "granted"
    second = start(2000)
    assert said(second) == (
        "waiting for 2.0 GiB of RAM (3.4 GiB of 3.9 GiB is free, 0.5 GiB stays so; 1 machine holds 2.0 GiB)"
    )
    give_back(first)
    assert said(second) == "granted"


def test_what_the_killed_had_is_free(start: Start) -> None:
    first, second = start(2000), start(900)
    assert [said(first), said(second)] == ["granted"] * 2
    third = start(2500)
    assert "2 machines hold 2.8 GiB" in said(third)
    for process in (first, second):
        process.kill()
    assert said(third) == "granted"


def test_they_are_served_in_the_order_in_which_they_came(start: Start, folder: RunFolder, host: HostMemory) -> None:
    first = start(2000)
    said(first)
    large = start(2500)
    assert said(large).startswith("waiting")
    small = start(500)
    assert said(small).startswith("waiting"), "it was let past somebody who has waited longer"
    with pytest.raises(ProvisionError, match="no room for a spare"):
        reserve_spare(folder, 500, host)
    give_back(first)
    assert said(large) == "granted"
    assert said(small) == "granted"


def test_nobody_waits_behind_the_dead(start: Start) -> None:
    first = start(2000)
    said(first)
    large = start(2500)
    assert said(large).startswith("waiting")
    small = start(500)
    assert said(small).startswith("waiting")
    large.kill()
    assert said(small) == "granted"


def test_a_crowd_never_holds_more_than_there_is(tmp_path: Path, start: Start) -> None:
    """As `-n 16` on a host with room for three."""
    log = tmp_path / "log"
    crowd = [start(1000, CROWD, str(log)) for _ in range(16)]
    for process in crowd:
        process.wait(60)
    assert [process.returncode for process in crowd] == [0] * 16
    held, most = 0, 0
    for sign in log.read_text().split():
        held += 1 if sign == "+" else -1
        most = max(most, held)
    assert log.read_text().count("+") == 16
    assert 2 <= most <= 3


def test_threads_of_one_process(home: Path, folder: RunFolder, host: HostMemory) -> None:
    reserve(folder, 2000, Deadline.after(0), SILENT, host)
    other, listener = RunFolder(home), Listening()
    thread = threading.Thread(target=reserve, args=(other, 2000, Deadline.after(30), listener, host))
    thread.start()
    wait_until(lambda: listener.said, Deadline.after(10), what="the announcement")
    assert thread.is_alive()
    folder.remove()
    thread.join(10)
    assert not thread.is_alive()
    assert machines_that_fit(home, 1000, host) == 1
    other.remove()


def test_what_the_host_has_not_and_nobody_can_give_back(folder: RunFolder, host: HostMemory) -> None:
    with pytest.raises(ProvisionError) as caught:
        reserve(folder, 3001, Deadline.after(60), SILENT, host)
    assert str(caught.value) == (
        "the machine does not fit into the host's free RAM: it needs 2.9 GiB\n"
        "  3.4 GiB of 3.9 GiB is free, 0.5 GiB stays so; no other machine holds any\n"
        "What to do: use a smaller machine (--vm-memory), fewer workers (-n), or end other programs"
    )
    assert not folder.file("claim").exists()


def test_what_the_host_never_has(start: Start, folder: RunFolder, host: HostMemory) -> None:
    first = start(1000)
    said(first)
    with pytest.raises(ProvisionError, match="this host is too small for the machine"):
        reserve(folder, 4000, Deadline.after(60), SILENT, host)


def test_the_deadline_passes(start: Start, home: Path, folder: RunFolder, host: HostMemory) -> None:
    first = start(2000)
    said(first)
    with pytest.raises(ProvisionError) as caught:
        reserve(folder, 2000, Deadline.after(0.1), SILENT, host)
    assert caught.value.brief == "there was no RAM for the machine within 0 s: it needs 2.0 GiB"
    assert "1 machine holds 2.0 GiB" in caught.value.details
    neighbour = RunFolder(home)
    reserve(neighbour, 1000, Deadline.after(0), SILENT, host)  # nobody is before it any more
    neighbour.remove()


def test_a_spare_takes_what_is_left(start: Start, folder: RunFolder, host: HostMemory) -> None:
    first = start(2000)
    said(first)
    with pytest.raises(ProvisionError, match="there is no room for a spare machine"):
        reserve_spare(folder, 1001, host)
    reserve_spare(folder, 1000, host)
    assert machines_that_fit(folder.path.parent, 1, host) == 0


def test_what_is_taken_is_not_counted_twice(home: Path, folder: RunFolder, host: HostMemory) -> None:
    reserve(folder, 2000, Deadline.after(0), SILENT, host)
    assert machines_that_fit(home, 100, host) == 10
    with process_with(200) as pid:
        note_process(folder, pid)
        # The host's file does not say that there is less now.
        assert machines_that_fit(home, 100, host) == 12
    assert machines_that_fit(home, 100, host) == 10


def test_another_process_of_the_same_id_has_taken_nothing(home: Path, folder: RunFolder, host: HostMemory) -> None:
    reserve(folder, 2000, Deadline.after(0), SILENT, host)
    with process_with(200) as pid:
        note_process(folder, pid)
        claim = json.loads(folder.file("claim").read_text())
        folder.file("claim").write_text(json.dumps({**claim, "started": "1"}))
        assert machines_that_fit(home, 100, host) == 10


def test_machines_of_other_containers_are_counted_by_what_they_use(
    home: Path, folder: RunFolder, host: HostMemory
) -> None:
    reserve(folder, 2000, Deadline.after(0), SILENT, host)
    claim = json.loads(folder.file("claim").read_text())
    folder.file("claim").write_text(json.dumps({**claim, "place": "elsewhere"}))
    assert machines_that_fit(home, 100, host) == 30


def test_the_process_of_a_machine_without_a_claim(folder: RunFolder) -> None:
    note_process(folder, 1)
    assert not folder.file("claim").exists()


@pytest.mark.parametrize("act", ["reserve", "note"])
def test_a_claim_that_cannot_be_written(folder: RunFolder, host: HostMemory, act: str) -> None:
    home = folder.path.parent
    if act == "note":
        reserve(folder, 1, Deadline.after(0), SILENT, host)
        folder.file("claim.draft").mkdir()
    else:
        shutil.rmtree(folder.path)
    with pytest.raises(ProvisionError, match="no RAM can be reserved") as caught:
        reserve(folder, 1, Deadline.after(0), SILENT, host) if act == "reserve" else note_process(folder, 1)
    assert caught.value.resolution == f"make room below {home}"


@contextmanager
def process_with(mib: int) -> Iterator[int]:
    """The id of a process that has taken so much."""
    script = f"import sys; room = bytearray(b'x') * ({mib} << 20); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.communicate()
