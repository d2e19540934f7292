"""Looking at a machine once: its console, its display, and what its guest says, each within a time limit."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import BackendError, BootcTestError, BootError, BootTimeoutError, GuestError
from pytest_bootc.evidence import rendering
from pytest_bootc.evidence.redaction import redact
from pytest_bootc.evidence.request import request, sources, split
from pytest_bootc.machine.base import HasConsole, HasControl, HasScreenshot, Machine
from pytest_bootc.machine.console import find_trouble
from pytest_bootc.model import Trouble

#: What all sources together may take, in seconds.
MOST_SECONDS = 10.0
#: The file in which a guest tells what it is.
VERSIONS = "versions.txt"

_CONSOLE = "console.log"
_CONSOLE_LIMIT = 1 << 20
_BEGAN = b"\n[the test began here]\n"
_SCREENSHOT_SECONDS = 1.5
_SCREENSHOT_LIMIT = 4 << 20
# For the guest's own sources, with KVM; in emulation up to so many times more.
_GUEST_SECONDS = 2
_GUEST_SECONDS_RANGE = (2, 7)
# For how long a guest may be silent before it counts as frozen; the latter per unit of how much slower it is.
_SILENCE_SECONDS = 2.0
_SILENCE_SECONDS_OF_SLOW = 0.25
_MOST_SILENCE_SECONDS = 4.0
_ANSWER_SECONDS = 1.0
_ANSWER_ROUND_TRIPS = 4
_MOST_ANSWER_SECONDS = 4.5
_HOST_SECONDS = 0.5
_SHOWN_ERROR = 300
_BEFORE_ALL = -1e9  # on the monotonic clock: before any guest booted


@dataclass(frozen=True)
class Beginning:
    """When a test began, on the monotonic clock, and how many bytes the machine's console had by then."""

    at: float
    console: int = 0


class Examination:
    """The files of one look at a machine, and when each was taken."""

    def __init__(self, machine: Machine, began: Beginning, deadline: Deadline) -> None:
        self.files: dict[str, str | bytes] = {}
        self.events: list[tuple[float, str]] = []
        self._machine = machine
        self._began = began
        self._deadline = deadline

    def look(self, beyond_asking: Callable[[], str | None]) -> None:
        """Look everywhere. ``beyond_asking`` says why nobody is in the guest who could answer, if it is so."""
        machine = self._machine
        if isinstance(machine, HasConsole):
            console = machine.console_log()
            self._take(_CONSOLE, lambda: self._marked(console))
        if isinstance(machine, HasScreenshot):
            shot = machine.screenshot
            self._take("screenshot.png", lambda: _screenshot(shot, self._deadline.sooner(_SCREENSHOT_SECONDS)))
        if isinstance(machine, HasControl):
            control = machine.control
            self._take("guest.txt", lambda: self._ask(control, beyond_asking()))

    def _take(self, name: str, source: Callable[[], str | bytes]) -> None:
        began = time.monotonic()
        try:
            content = source()
        except (BootcTestError, OSError) as error:
            line = redact(str(error)).partition("\n")[0][:_SHOWN_ERROR]
            content = f"[{name} could not be taken: {line}]\n"
        if content:
            self.files[name] = content
        self.events.append((time.monotonic(), f"evidence: {name}, {time.monotonic() - began:.2f} s"))

    def _marked(self, console: Path) -> str:
        """The end of it, for a boot may tell what a test shows only later; with a line where the test began."""
        start = max(0, console.stat().st_size - _CONSOLE_LIMIT)
        with console.open("rb") as file:
            file.seek(start)
            text = file.read(_CONSOLE_LIMIT)
        began = self._began.console - start
        if 0 < began <= len(text):
            text = text[:began].rstrip() + _BEGAN + text[began:]
        return redact(text.decode(errors="replace"))

    def _ask(self, control: Callable[[str, Deadline], tuple[int, str]], beyond: str | None) -> str:
        """Ask the guest, once, and take its answers; a remark where something was not to be had."""
        if beyond is not None:
            return f"[the guest was not asked: {redact(beyond)}]\n"
        factor = self._machine.facts.time_factor
        # A frozen guest is not to cost what a slow one may have.
        silence = min(_SILENCE_SECONDS + _SILENCE_SECONDS_OF_SLOW * factor, _MOST_SILENCE_SECONDS)
        asked = time.monotonic()
        control(":", self._deadline.sooner(silence))
        round_trip = time.monotonic() - asked
        seconds = min(max(math.ceil(_GUEST_SECONDS * factor), _GUEST_SECONDS_RANGE[0]), _GUEST_SECONDS_RANGE[1])
        # For its shells to begin and to send what they have, when the time of the sources is up.
        aside = min(_ANSWER_SECONDS + _ANSWER_ROUND_TRIPS * round_trip, _MOST_ANSWER_SECONDS)
        seconds = min(seconds, int(self._deadline.remaining() - aside - _HOST_SECONDS))
        if seconds < 1:
            raise GuestError("there was no time left to ask the guest")
        # A test's first moments are not to be missed because the guest took its time to look at its clock.
        elapsed = time.monotonic() - self._began.at + 0.1 * (1 + factor)
        wanted = sources(elapsed)
        status, output = control(request(wanted, factor, seconds), self._deadline.sooner(seconds + aside))
        answers = split(output, wanted)
        if not answers:
            raise GuestError(f"the guest's shell ended with status {status}, and printed {output[-_SHOWN_ERROR:]!r}")
        self.files[VERSIONS] = rendering.file("facts", answers)
        self.files.update(rendering.files(answers, elapsed))
        missing = [source.name for source in wanted if source.name not in answers]
        return f"[for want of time the guest was not asked for: {', '.join(missing)}]\n" if missing else ""


def examine_failed_boot(machine: Machine, error: BootcTestError) -> Mapping[str, bytes]:
    """The files of a machine that has not come up, before it is ended: in its guest there may be somebody to ask."""
    if not isinstance(error, BootError | BootTimeoutError):
        return {}
    examination = Examination(machine, Beginning(_BEFORE_ALL), Deadline.after(MOST_SECONDS))
    examination.look(lambda: _panic(machine))
    files = examination.files
    return {name: text.encode(errors="replace") if isinstance(text, str) else text for name, text in files.items()}


def _panic(machine: Machine) -> str | None:
    if not isinstance(machine, HasConsole):
        return None
    found = find_trouble(machine.console_log().read_text(errors="replace"))
    return next((str(finding) for finding in found if finding.kind is Trouble.PANIC), None)


def _screenshot(take: Callable[[Path, Deadline], Path], deadline: Deadline) -> bytes:
    with tempfile.TemporaryDirectory(prefix="bootc-evidence-") as folder:
        content = take(Path(folder) / "screenshot.png", deadline).read_bytes()
    if len(content) > _SCREENSHOT_LIMIT:
        raise BackendError(f"it has {len(content)} bytes, and {_SCREENSHOT_LIMIT} are the limit")
    return content
