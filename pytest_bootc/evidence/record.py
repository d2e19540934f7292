"""The evidence of one test: what its machine said and did, in files.

All sources together have ten seconds and 20 MB per test. One that fails leaves a line about that: evidence never hides
the failure that it is about.
"""

from __future__ import annotations

import hashlib
import math
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import BootcTestError, GuestError, MachineLostError
from pytest_bootc.evidence import rendering
from pytest_bootc.evidence.redaction import redact
from pytest_bootc.evidence.request import request, sources, split
from pytest_bootc.machine.base import HasConsole, HasControl, HasScreenshot, Machine
from pytest_bootc.machine.pool import VM
from pytest_bootc.model import Trouble

#: What all sources together may take of a test's time, in seconds, and its evidence of room, in bytes.
MOST_SECONDS = 10.0
MOST_BYTES = 20_000_000

_CONSOLE_LIMIT = 1 << 20
_BEGAN = b"\n[the test began here]\n"
_SCREENSHOT_SECONDS = 1.5
_SCREENSHOT_LIMIT = 4 << 20
# For the guest's own sources, with KVM; in emulation up to so many times more.
_GUEST_SECONDS = 2
_GUEST_SECONDS_RANGE = (3, 6)
_ANSWER_SECONDS = 1.5
_HOST_SECONDS = 0.5
_EVENTS = 500
_SLUG_LENGTH = 120
_SHOWN_ERROR = 300
_FIRST_TRY = "first-try"

#: Runs a line of shell in the guest and returns its exit status and what it printed.
GuestShell = Callable[[str, Deadline], tuple[int, str]]


@dataclass(frozen=True)
class Circumstances:
    """What the evidence is to say of the run: words for versions.txt, and the command that runs the test again."""

    versions: Mapping[str, str] = field(default_factory=dict)
    reproduce: str = ""


class EvidenceRecord:
    """The evidence of one test. It is held in memory until somebody wants it kept."""

    def __init__(self, folder: Path, nodeid: str) -> None:
        self.folder = folder / slug(nodeid)
        self._pieces: dict[str, bytes] = {}
        self._always: set[str] = set()
        self._written: dict[str, int] = {}
        self._events: list[tuple[float, str]] = []
        self._started = time.monotonic()
        self._spent = 0.0
        self._machine = ""
        self._console_size = 0

    def begin(self, vm: VM | None, *, again: bool = False) -> None:
        """Note where the machine's console stands, and forget what an earlier run of the test left.

        ``again``: this is the test's second try in the same run, and what the first one left is put aside.
        """
        if self.folder.is_dir():
            _put_aside(self.folder) if again else shutil.rmtree(self.folder)
        self._started = time.monotonic()
        self._events.append((self._started, "the test begins"))
        if vm is not None and vm.running is not None and isinstance(vm.running, HasConsole):
            self._machine, self._console_size = vm.name, vm.running.console_log().stat().st_size

    def attach(self, name: str, content: str | bytes, *, always: bool = False) -> None:
        """Add a file, to be kept if the test's evidence is; ``always``: also where the test passes.

        Nothing is kept with ``--evidence off``, nor what would make the test's evidence larger than 20 MB.
        """
        name = Path(name).name
        self._pieces[name] = content.encode(errors="replace") if isinstance(content, str) else content
        if always:
            self._always.add(name)

    def collect(self, vm: VM | None, circumstances: Circumstances) -> None:
        """Take what the machine and its guest say, within what is left of ten seconds. It never fails."""
        began = time.monotonic()
        self._events.append((began, "evidence is taken"))
        deadline = Deadline.after(max(0.0, MOST_SECONDS - self._spent))
        facts = ""
        if vm is not None and vm.running is not None:
            facts = self._from_machine(vm, vm.running, deadline)
        elif vm is not None and vm.failure is not None:
            self.attach("console.log", redact(vm.failure.console.decode(errors="replace")))
        self.attach("versions.txt", redact(rendering.words_file(circumstances.versions) + facts))
        if circumstances.reproduce:
            self.attach("reproduce.txt", redact(f"{circumstances.reproduce}\n"))
        self._events.append((time.monotonic(), "evidence was taken"))
        self.attach("timeline.txt", redact(self._timeline(vm)))
        self._spent += time.monotonic() - began

    def keep(self, *, failed: bool = True) -> list[Path]:
        """Write the files that were not written yet, and return their paths.

        Where the test has not ``failed`` only those are written that are always kept.

        :raises OSError: they cannot be written.
        """
        wanted = {name: content for name, content in self._pieces.items() if failed or name in self._always}
        paths = []
        for name, content in wanted.items():
            used = sum(size for written, size in self._written.items() if written != name)
            if used + len(content) > MOST_BYTES:
                content = f"[left out: with its {len(content)} bytes the test would have more than 20 MB]\n".encode()
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(content)
            self._written[name] = len(content)
            paths.append(self.folder / name)
            del self._pieces[name]
        return paths

    def _from_machine(self, vm: VM, machine: Machine, deadline: Deadline) -> str:
        """Take the console, a screenshot and what the guest says; return its facts, where it says any."""
        if isinstance(machine, HasConsole):
            console = machine.console_log()
            self._take("console.log", lambda: self._marked_console(console, vm.name))
        if isinstance(machine, HasScreenshot):
            shot = machine.screenshot
            self._take("screenshot.png", lambda: _screenshot(shot, deadline.sooner(_SCREENSHOT_SECONDS)))
        if not isinstance(machine, HasControl):
            return ""
        if (reason := _beyond_asking(vm)) is not None:
            self.attach("guest.txt", f"[the guest was not asked: {redact(reason)}]\n")
            return ""
        control, facts = machine.control, [""]
        self._take("guest.txt", lambda: self._from_guest(control, vm.facts.time_factor, deadline, facts))
        return facts[0]

    def _from_guest(self, control: GuestShell, factor: float, deadline: Deadline, facts: list[str]) -> str:
        """Ask the guest, once, and take its answers; a remark where something was not to be had."""
        seconds = min(max(math.ceil(_GUEST_SECONDS * factor), _GUEST_SECONDS_RANGE[0]), _GUEST_SECONDS_RANGE[1])
        seconds = min(seconds, int(deadline.remaining() - _ANSWER_SECONDS - _HOST_SECONDS))
        if seconds < 1:
            raise GuestError("there was no time left to ask the guest")
        # A test's first moments are not to be missed because the guest took its time to look at its clock.
        elapsed = time.monotonic() - self._started + 0.1 * (1 + factor)
        wanted = sources(elapsed)
        status, output = control(request(wanted, factor, seconds), deadline.sooner(seconds + _ANSWER_SECONDS))
        answers = split(output, wanted)
        if not answers:
            raise GuestError(f"the guest's shell ended with status {status}, and printed {output[-_SHOWN_ERROR:]!r}")
        facts[0] = rendering.file("facts", answers)
        for name, content in rendering.files(answers, elapsed).items():
            self.attach(name, content)
        missing = [source.name for source in wanted if source.name not in answers and not source.where]
        return f"[for want of time the guest was not asked for: {', '.join(missing)}]\n" if missing else ""

    def _take(self, name: str, source: Callable[[], str | bytes]) -> None:
        began = time.monotonic()
        try:
            content = source()
        except (BootcTestError, OSError) as error:
            line = redact(str(error)).partition("\n")[0][:_SHOWN_ERROR]
            content = f"[{name} could not be taken: {line}]\n"
        if content:
            self.attach(name, content)
        self._events.append((time.monotonic(), f"evidence: {name}, {time.monotonic() - began:.2f} s"))

    def _marked_console(self, console: Path, machine: str) -> str:
        """The end of it, for a boot may tell what a test shows only later; with a line where the test began."""
        size = console.stat().st_size
        start = max(0, size - _CONSOLE_LIMIT)
        with console.open("rb") as file:
            file.seek(start)
            text = file.read(_CONSOLE_LIMIT)
        began = self._console_size - start if machine == self._machine else 0
        if 0 < began <= len(text):
            text = text[:began].rstrip() + _BEGAN + text[began:]
        return redact(text.decode(errors="replace"))

    def _timeline(self, vm: VM | None) -> str:
        events = sorted([*self._events, *([] if vm is None else vm.timeline.events())])[-_EVENTS:]
        return "seconds since the test began\n" + "".join(
            f"{at - self._started:+10.2f}  {text}\n" for at, text in events
        )


def slug(nodeid: str) -> str:
    """A file name for a node id: what can be read of it, and enough of a hash that no two are the same."""
    readable = re.sub(r"[^A-Za-z0-9_.]+", "-", nodeid).strip("-.")[:_SLUG_LENGTH]
    return f"{readable}-{hashlib.sha256(nodeid.encode()).hexdigest()[:6]}"


def _put_aside(folder: Path) -> None:
    aside = folder / _FIRST_TRY
    aside.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path != aside:
            path.replace(aside / path.name)


def _beyond_asking(vm: VM) -> str | None:
    """Why there is nobody in the guest who could answer; after other trouble than this somebody often does."""
    if isinstance(vm.trouble, MachineLostError):
        return vm.trouble.brief
    panic = next((finding for finding in vm.findings() if finding.kind is Trouble.PANIC), None)
    return None if panic is None else str(panic)


def _screenshot(take: Callable[[Path, Deadline], Path], deadline: Deadline) -> bytes:
    with tempfile.TemporaryDirectory(prefix="bootc-evidence-") as folder:
        content = take(Path(folder) / "screenshot.png", deadline).read_bytes()
    if len(content) > _SCREENSHOT_LIMIT:
        raise GuestError(f"it has {len(content)} bytes, and {_SCREENSHOT_LIMIT} are the limit")
    return content
