"""The evidence of one test: what its machine said and did, in files.

All sources together have ten seconds and 20 MB per test. One that fails leaves a line about that: evidence never hides
the failure that it is about.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import MachineLostError
from pytest_bootc.evidence import rendering
from pytest_bootc.evidence.examination import MOST_SECONDS, VERSIONS, Beginning, Examination
from pytest_bootc.evidence.redaction import redact
from pytest_bootc.machine.base import HasConsole
from pytest_bootc.machine.pool import VM
from pytest_bootc.model import Trouble

#: How much room the evidence of a test may take, in bytes.
MOST_BYTES = 20_000_000

_EVENTS = 500
_SLUG_LENGTH = 120
_FIRST_TRY = "first-try"


@dataclass(frozen=True)
class Circumstances:
    """What the evidence is to say of the run: words for versions.txt, and the command that runs the test again."""

    versions: Mapping[str, str] = field(default_factory=dict)
    reproduce: str = ""


class EvidenceRecord:
    """The evidence of one test. It is held in memory until somebody wants it kept.

    ``reported`` says whether somebody will see what is kept of tests that pass: Allure's report is written, or
    evidence is always kept. What costs time and only illustrates a pass is not worth taking otherwise.
    """

    def __init__(self, folder: Path, nodeid: str, *, reported: bool = False) -> None:
        self.folder = folder / slug(nodeid)
        self.reported = reported
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
        for name, content in self._seen(vm, deadline).items():
            self.attach(name, content)
        facts = self._pieces.pop(VERSIONS, b"").decode()
        self.attach(VERSIONS, redact(rendering.words_file(circumstances.versions)) + facts)
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

    def _seen(self, vm: VM | None, deadline: Deadline) -> Mapping[str, str | bytes]:
        """The files of the machine, as it is now or as it was when it had failed to boot."""
        if vm is None:
            return {}
        if vm.running is None:
            if vm.failure is None:
                return {}
            console = redact(vm.failure.console.decode(errors="replace"))
            return {"console.log": console, **vm.failure.evidence}
        began = Beginning(self._started, self._console_size if vm.name == self._machine else 0)
        examination = Examination(vm.running, began, deadline)
        examination.look(lambda: _beyond_asking(vm))
        self._events += examination.events
        return examination.files

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
    return next((str(finding) for finding in vm.findings() if finding.kind is Trouble.PANIC), None)
