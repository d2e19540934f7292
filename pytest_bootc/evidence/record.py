"""What is kept of a test: files in a folder of its own, and what its machine said while it ran.

Each source has its own time limit, and one that fails leaves a line about that: evidence never hides the failure
that it is about.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import BootcTestError, GuestError
from pytest_bootc.machine.base import HasConsole
from pytest_bootc.machine.pool import VM

#: Runs a line of shell in the guest and returns its exit status and what it printed.
GuestShell = Callable[[str, Deadline], tuple[int, str]]

_SOURCE_SECONDS = 5.0
_CONSOLE_LIMIT = 1 << 20
_BEGAN = b"\n[the test began here]\n"
_JOURNAL_LINES = 3000
_LINES_BEFORE = 50
_CLOCK_MARGIN = 0.1
_SLUG_LENGTH = 120
# Times since boot neither jump with the guest's clock nor ask anything of the guest before a test has failed.
_JOURNAL = f"cat /proc/uptime; journalctl --boot --no-pager --output=short-monotonic --lines={_JOURNAL_LINES}"
_STAMP = re.compile(r"\[ *([0-9]+\.[0-9]+)\]")


@dataclass(frozen=True)
class Piece:
    """One file of evidence."""

    name: str
    content: bytes


class EvidenceRecord:
    """The evidence of one test. It is held in memory until somebody wants it kept."""

    def __init__(self, folder: Path, nodeid: str) -> None:
        self.folder = folder / slug(nodeid)
        self._pieces: dict[str, bytes] = {}
        self._started = time.monotonic()
        self._machine = ""
        self._console_size = 0

    def begin(self, vm: VM | None) -> None:
        """Note where the machine's console stands, and forget what an earlier run of the test left."""
        if self.folder.is_dir():
            shutil.rmtree(self.folder)
        self._started = time.monotonic()
        if vm is not None and vm.running is not None and (console := _console(vm)) is not None:
            self._machine, self._console_size = vm.name, console.stat().st_size

    def attach(self, name: str, content: str | bytes) -> None:
        """Add a file, to be kept if the test's evidence is."""
        self._pieces[Path(name).name] = content.encode() if isinstance(content, str) else content

    def collect(self, vm: VM | None, shell: GuestShell | None) -> None:
        """Take what the machine has said: its console, and its journal since the test began through ``shell``."""
        if vm is None:
            return
        if vm.failure is not None:
            self.attach("console.log", vm.failure.console)
        elif vm.running is not None:
            self._take("console.log", lambda: self._marked_console(vm))
            if shell is not None:
                self._take("journal.txt", lambda: self._journal_since(shell))

    def keep(self) -> list[Path]:
        """Write the files that were not written yet, and return their paths."""
        written = []
        for name, content in self._pieces.items():
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(content)
            written.append(self.folder / name)
        self._pieces.clear()
        return written

    def _take(self, name: str, source: Callable[[], bytes | None]) -> None:
        try:
            content = source()
        except (BootcTestError, OSError) as error:
            content = f"[{name} could not be taken: {error}]\n".encode()
        if content:
            self.attach(name, content)

    def _marked_console(self, vm: VM) -> bytes | None:
        """All of it, for a boot may tell what a test shows only later; with a line where the test began."""
        console = _console(vm)
        if console is None:
            return None
        text = console.read_bytes()
        size = self._console_size if vm.name == self._machine else 0
        if 0 < size <= len(text):
            text = text[:size].rstrip() + _BEGAN + text[size:]
        return text[-_CONSOLE_LIMIT:]

    def _journal_since(self, shell: GuestShell) -> bytes:
        before = time.monotonic() - self._started
        status, output = shell(_JOURNAL, Deadline.after(_SOURCE_SECONDS))
        if status != 0:
            raise GuestError(f"journalctl gave exit status {status}", details=output)
        uptime, _, journal = output.partition("\n")
        # An uptime that cannot be read costs nothing but length.
        match = re.match(r"[0-9.]+", uptime)
        since = float(match[0]) - before - _CLOCK_MARGIN if match else 0.0
        return journal_since(journal, since).encode()


def journal_since(journal: str, uptime: float) -> str:
    """The entries of a journal in the format short-monotonic from an uptime (in seconds) on.

    Where there are none, the last ones before: a guest that was suspended counts its uptime otherwise.
    """
    lines = journal.splitlines(keepends=True)
    for number, line in enumerate(lines):
        stamp = _STAMP.match(line)
        if stamp and float(stamp[1]) >= uptime:
            return "".join(lines[number:])
    return "".join(("[nothing since the test began; what was last before it:]\n", *lines[-_LINES_BEFORE:]))


def slug(nodeid: str) -> str:
    """A file name for a node id: what can be read of it, and enough of a hash that no two are the same."""
    readable = re.sub(r"[^A-Za-z0-9_.]+", "-", nodeid).strip("-.")[:_SLUG_LENGTH]
    return f"{readable}-{hashlib.sha256(nodeid.encode()).hexdigest()[:6]}"


def _console(vm: VM) -> Path | None:
    # A test is not skipped because the backend lacks what would only be its evidence.
    return vm.running.console_log() if isinstance(vm.running, HasConsole) else None
