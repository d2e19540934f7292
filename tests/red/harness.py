"""Runs of pytest on what was broken on purpose: how they are made, what they must say, what they may leave: nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pytest_bootc.deadline import Deadline, wait_until

#: The property of a test's report that holds its row of the table.
ROW = "red"
#: Every process of an inner run inherits this variable, wherever it moves; its value is the bed's folder.
MARKER = "PYTEST_BOOTC_RED"

_RED = (1, 10)
_RUN_SECONDS = 1200.0
_GONE_SECONDS = 20.0
_SHOWN = 6000
_WORKER = b"exec(eval(sys.stdin.readline()))"  # how execnet starts the workers of xdist
# scripts/test looks for what the tests leave by this one.
_KEPT = ("PYTEST_BOOTC_TEST_RUN",)


@dataclass(frozen=True)
class Case:
    """A fault, and what a run must make of it.

    ``states`` are those of the JUnit report, by a part of the test's name. ``quote`` is a regular expression that the
    terminal must show, ``reported`` one for a property in the JUnit report, NAME=VALUE. ``within`` are the seconds in
    which a test, by a part of its name, must have ended. What is ``half_built`` when a process dies in it is removed
    by the next run.
    """

    name: str
    seeded: str
    image: str = "server"
    tests: str = ""
    options: tuple[str, ...] = ()
    status: int = 1
    states: Mapping[str, str] = field(default_factory=dict)
    quote: str = ""
    reported: str = ""
    within: Mapping[str, float] = field(default_factory=dict)
    runs: int = 1
    fresh_cache: bool = False
    half_built: bool = False
    short: bool = False


_NEXT = "def test_disk(golden_disk):\n    assert golden_disk\n"
_GOOD_NEXT = Case("next run", "", status=0, states={"test_disk": "pass"})


@dataclass(frozen=True)
class Place:
    """Namespaces of their own: ``prefix`` runs a command there, ``root`` is how to look in from here."""

    prefix: tuple[str, ...]
    root: Path


@dataclass(frozen=True)
class Row:
    """One line of the table at the end."""

    case: str
    seeded: str
    caught: bool
    right: bool
    seconds: float


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit status, what it printed, and the tests of its JUnit report."""

    status: int
    text: str
    states: Mapping[str, str]
    seconds: Mapping[str, float]
    properties: frozenset[str]

    def faults(self, case: Case) -> list[str]:
        """What is not as the case says, in words."""
        found = []
        if self.status != case.status:
            found.append(f"exit status {self.status} instead of {case.status}")
        for part, state in case.states.items():
            told = {name: said for name, said in self.states.items() if part in name}
            if not told or set(told.values()) != {state}:
                found.append(f"{part}: {told or 'no such test'} instead of {state}")
        if not re.search(case.quote, self.text):
            found.append(f"nothing like {case.quote!r} is shown")
        if case.reported and not any(re.fullmatch(case.reported, told) for told in self.properties):
            found.append(f"nothing like {case.reported!r} is in the JUnit report")
        for part, limit in case.within.items():
            found += [
                f"{name} took {seconds:.0f} s instead of {limit:.0f}"
                for name, seconds in self.seconds.items()
                if part in name and seconds > limit
            ]
        return found

    def catches(self, case: Case) -> bool:
        """Whether the fault was noticed at all: the run was red, whatever for, or told of it."""
        return self.status in _RED if case.status else not self.faults(case)


class Running:
    """An inner run while it lasts."""

    def __init__(self, bed: Bed, process: subprocess.Popen[bytes], junit: Path, log: Path) -> None:
        self.bed = bed
        self.process = process
        self._junit = junit
        self._log = log

    def text(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(errors="replace")

    def wait_for(self, check: Callable[[], object], what: str, seconds: float = 300.0) -> None:
        """Wait for something while the run lasts."""

        def come() -> bool:
            if check():
                return True
            assert self.process.poll() is None, f"the run ended before there was {what}:\n{self.text()[-_SHOWN:]}"
            return False

        wait_until(come, Deadline.after(seconds), what=what, last=lambda: self.text()[-_SHOWN:])

    def qemu(self) -> int:
        """The process id of the run's only QEMU."""
        found = [pid for pid, line in self.bed.processes().items() if b"qemu-system" in line.split(b"\0")[0]]
        assert len(found) == 1, f"{len(found)} QEMUs run"
        return found[0]

    def worker(self) -> int:
        """The process id of the run's only xdist worker."""
        (found,) = [pid for pid, line in self.bed.processes().items() if _WORKER in line]
        return found

    def end(self) -> Ended:
        """Wait for the end."""
        status = self.process.wait(_RUN_SECONDS)
        return Ended(status, self.text(), *_read_junit(self._junit))


class Bed:
    """The folders of one case, with short names (those of sockets end at 107 bytes), and the runs in them."""

    def __init__(self, cache: Path) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="red-"))
        self.cache = cache
        self.work = self.path / "work"
        self.temporary = self.path / "tmp"
        self.runtime = self.path / "run"
        for folder in (self.work, self.temporary, self.runtime):
            folder.mkdir(mode=0o700)
        (self.work / "pytest.ini").write_text("[pytest]\n")
        #: Where the runs are made, if not here.
        self.place: Place | None = None
        self._runs = 0

    @property
    def home(self) -> Path:
        """The plugin's part of the cache, as seen from here."""
        root = Path("/") if self.place is None else self.place.root
        return root / self.cache.relative_to("/") / "pytest-bootc"

    def use_fresh_cache(self) -> None:
        """Begin with nothing pulled and nothing built."""
        self.cache = self.path / "cache"

    def forget_disks(self) -> None:
        """Begin with everything pulled and nothing built."""
        shutil.rmtree(self.home / "disks")
        for index in self.home.glob("layers/*/*/*.erofs"):
            index.unlink()

    @contextmanager
    def run(self, image: str, tests: str, *options: str, **more: str) -> Iterator[Running]:
        """Begin to judge an image: with a test file of this text, else with the suites that the options name."""
        self._runs += 1
        junit, log = self.path / f"junit-{self._runs}.xml", self.path / f"log-{self._runs}"
        # Entering a namespace of mounts changes the working directory.
        enter = [] if self.place is None else [*self.place.prefix, "env", f"--chdir={self.work}"]
        command = [
            *enter,
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
            f"--basetemp={self.path}/basetemp",
        ]
        command += ["--image", image, "--vm-network", "restricted", f"--junitxml={junit}", *options]
        if tests:
            (self.work / "test_inner.py").write_text(tests)
            command.append("test_inner.py")
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command,
                cwd=self.work,
                env=self._environment(more),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        try:
            yield Running(self, process, junit, log)
        finally:
            if process.poll() is None:
                self.kill_all()
                process.wait()

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k in _KEPT or not k.startswith(("BOOTC_", "PYTEST_"))}
        folders = {"TMPDIR": self.temporary, "XDG_RUNTIME_DIR": self.runtime, "XDG_CACHE_HOME": self.cache}
        return {**kept, **{k: str(v) for k, v in folders.items()}, MARKER: str(self.path), **more}

    def processes(self) -> dict[int, bytes]:
        """What runs of this bed: process ids and command lines."""
        found = {}
        wanted = f"{MARKER}={self.path}\0".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended just now
                if wanted in (process / "environ").read_bytes() + b"\0":
                    found[int(process.name)] = (process / "cmdline").read_bytes()
        return found

    def kill_all(self) -> None:
        """End every process of this bed."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def leftovers(self, *, of_machines_only: bool = False) -> list[str]:
        """Processes, sockets, locks, overlays and temporary files that are there, in words.

        A killed run cannot let go of its half-built disk: its machine's things are removed for it, and the rest by
        whoever comes next (``of_machines_only``).
        """
        found = [f"process {pid}: {line.decode(errors='replace')}" for pid, line in self.processes().items()]
        machines = [*self.runtime.iterdir(), *self.home.glob("vms/vm-*")]
        others = [*self.temporary.iterdir(), *self.home.glob("locks/*")]
        for kind in ("layers", "disks", "warm", "downloads"):
            others += [*self.home.glob(f"{kind}/*/.*"), *self.home.glob(f"{kind}/*/*/.*")]
        return found + [str(path) for path in (machines if of_machines_only else machines + others)]

    def await_nothing(self, *, of_machines_only: bool = False) -> list[str]:
        """What is still there after some seconds."""
        limit = Deadline.after(_GONE_SECONDS)
        while (found := self.leftovers(of_machines_only=of_machines_only)) and not limit.expired():
            time.sleep(0.2)
        return found

    def close(self) -> None:
        """End and remove everything."""
        self.kill_all()
        shutil.rmtree(self.path)


class Book:
    """What a case's test has found out, for its row and for its assertions."""

    def __init__(self, properties: list[tuple[str, object]], bed: Bed, layouts: Mapping[str, Path]) -> None:
        self._properties = properties
        self._bed = bed
        self._layouts = layouts

    def judge(self, case: Case, act: Callable[[Running], None] = lambda _: None, **more: str) -> None:
        """Make the case's runs, with ``act`` at work beside each, and see that they say what they must."""
        if case.fresh_cache:
            self._bed.use_fresh_cache()
        image = self.image(case.image)
        began = time.monotonic()
        caught, faults, told = True, [], ""
        for number in range(case.runs):
            with self._bed.run(image, case.tests, *case.options, **more) as running:
                act(running)
                ended = running.end()
            caught = caught and ended.catches(case)
            faults += [f"run {number + 1}: {fault}" for fault in ended.faults(case)]
            left = self._bed.await_nothing(of_machines_only=case.half_built)
            if case.half_built:
                with self._bed.run(image, _NEXT) as running:
                    faults += [f"in the next run: {fault}" for fault in running.end().faults(_GOOD_NEXT)]
                left += self._bed.await_nothing()
            faults += [f"run {number + 1} left {path}" for path in left]
            told = ended.text
        self.note(Row(case.name, case.seeded, caught, not faults, time.monotonic() - began))
        assert not faults, "\n".join([*faults, "", told[-_SHOWN:]])

    def judge_together(self, cases: Sequence[Case], image: str, *options: str) -> None:
        """Make one run of an image with several faults; each case has its row, and a share of the time."""
        began = time.monotonic()
        with self._bed.run(self.image(image), "", *options) as running:
            ended = running.end()
        faults = {case.name: ended.faults(case) for case in cases}
        left = self._bed.await_nothing()
        for case in cases:
            caught = ended.catches(case) and not any("no such test" in fault for fault in faults[case.name])
            seconds = (time.monotonic() - began) / len(cases)
            self.note(Row(case.name, case.seeded, caught, not faults[case.name] and not left, seconds))
        told = [f"{name}: {fault}" for name, found in faults.items() for fault in found]
        assert not told, "\n".join([*told, "", ended.text[-_SHOWN:]])
        assert not left

    def note(self, row: Row) -> None:
        """Put a row into the table."""
        self._properties.append((ROW, json.dumps(asdict(row))))

    def image(self, name: str) -> str:
        """How the command line names a test image; what has a colon is a reference already."""
        return name if ":" in name else f"oci:{self._layouts[name]}:latest"


def _read_junit(path: Path) -> tuple[dict[str, str], dict[str, float], frozenset[str]]:
    """The states and seconds of the tests, and all their properties; a report that is not there has none."""
    states: dict[str, str] = {}
    seconds: dict[str, float] = {}
    properties: set[str] = set()
    if path.exists():
        for test in ET.parse(path).getroot().iter("testcase"):
            name = f"{test.get('classname')}::{test.get('name')}"
            seconds[name] = float(test.get("time", "0"))
            told = {(each.get("name", ""), each.get("value", "")) for each in test.iter("property")}
            for value in (value for key, value in told if key == "state"):
                states[name] = value
            properties.update(f"{key}={value}" for key, value in told)
    return states, seconds, frozenset(properties)


def table(rows: list[Row]) -> Iterator[str]:
    """The lines of the table, and the totals."""
    wide = max(4, *(len(row.case) for row in rows))
    words = {True: "yes", False: "NO"}
    yield f"red: {'case':{wide}}  caught  right  seconds  seeded"
    for row in rows:
        yield (f"red: {row.case:{wide}}  {words[row.caught]:6}  {words[row.right]:5}  {row.seconds:7.0f}  {row.seeded}")
    caught, right = sum(row.caught for row in rows), sum(row.right for row in rows)
    yield (
        f"red: {len(rows)} seeded, {caught} caught ({100 * caught // len(rows)} %), "
        f"{right} classified right ({100 * right // len(rows)} %), {sum(row.seconds for row in rows):.0f} s"
    )
