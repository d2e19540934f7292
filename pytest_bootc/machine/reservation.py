"""RAM that is reserved before a machine starts: over all threads, workers and runs that share a folder of machines.

What a machine will need is written into its folder (:mod:`pytest_bootc.machine.rundir`), whose owner is known to live
by a lock: with the owner, however it ends, its claim is gone. A claim is granted if it fits into what the host has,
less what other machines were promised and have not taken yet. Whoever does not fit waits, in the order of arrival: so
a large machine is not passed over for ever by small ones.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import ProvisionError, WaitTimeoutError
from pytest_bootc.machine.memory import HOST, HostMemory, Room, gib, taken
from pytest_bootc.machine.rundir import RunFolder, living
from pytest_bootc.progress import Progress

_CLAIM = "claim"
_SMALLER = "use a smaller machine (--vm-memory), fewer workers (-n), or end other programs"


@dataclass(frozen=True)
class _Claim:
    """What one machine needs. ``place`` says where process ids mean the same; ``process`` is QEMU's, 0 before it runs.

    ``arrival`` is on the monotonic clock, which all processes of a host share.
    """

    mib: int
    arrival: int
    place: str
    granted: bool = False
    process: int = 0
    started: str = ""

    @property
    def outstanding(self) -> int:
        """How much of it will still be taken.

        What runs in another container is counted by what it uses now: its processes cannot be told from here.
        """
        if self.place != _place():
            return 0
        runs = bool(self.started) and _start_time(self.process) == self.started
        return max(0, self.mib - (taken(self.process) if runs else 0))


@dataclass(frozen=True)
class _Ledger:
    """All claims of living owners, and the room that there is."""

    claims: tuple[_Claim, ...]
    room: Room

    @property
    def held(self) -> list[_Claim]:
        """The claims that were granted."""
        return [claim for claim in self.claims if claim.granted]

    @property
    def free(self) -> int:
        """The MiB that are left for new machines."""
        return self.room.available - self.room.headroom - sum(claim.outstanding for claim in self.held)

    def is_awaited_before(self, claim: _Claim) -> bool:
        """Whether somebody has waited longer."""
        return any(not other.granted and other.arrival < claim.arrival for other in self.claims)

    def __str__(self) -> str:
        count = len(self.held)
        holders = f"{count} machine{' holds' if count == 1 else 's hold'} {gib(sum(claim.mib for claim in self.held))}"
        free = f"{gib(self.room.available)} of {gib(self.room.total)} is free"
        return f"{free}, {gib(self.room.headroom)} stays so; {holders if count else 'no other machine holds any'}"


class _Wish:
    """A claim on the way to being granted."""

    def __init__(self, folder: RunFolder, mib: int, host: HostMemory) -> None:
        self._file = folder.file(_CLAIM)
        self._home = folder.path.parent
        self._host = host
        self._claim = _Claim(mib, time.monotonic_ns(), _place())
        self.ledger = _Ledger((), Room(0, 0))

    def is_granted(self) -> bool:
        """Look whether it is its turn and fits.

        :raises ProvisionError: it is its turn, and waiting is in vain.
        """
        try:
            with living(self._home) as folders:
                others = [folder for folder in folders if folder != self._file.parent]
                self.ledger = _Ledger(tuple(_read(others)), self._host.room())
                claim = replace(self._claim, granted=self._may_be_granted())
                _write(self._file, claim)
                self._claim = claim
        except OSError as error:
            raise _unwritable(self._home, error) from error
        return self._claim.granted

    def refusal(self, brief: str) -> ProvisionError:
        """The error that says what there is."""
        return ProvisionError(
            f"{brief}: it needs {gib(self._claim.mib)}", details=str(self.ledger), resolution=_SMALLER
        )

    def withdraw(self) -> None:
        """Let others have what was not granted."""
        if not self._claim.granted:
            self._file.unlink(missing_ok=True)

    def _may_be_granted(self) -> bool:
        if self.ledger.is_awaited_before(self._claim):
            return False
        if self._claim.mib <= self.ledger.free:
            return True
        if self._claim.mib > self.ledger.room.total - self.ledger.room.headroom:
            raise self.refusal("this host is too small for the machine")
        if not self.ledger.held:
            raise self.refusal("the machine does not fit into the host's free RAM")
        return False


def reserve(folder: RunFolder, mib: int, deadline: Deadline, progress: Progress, host: HostMemory = HOST) -> None:
    """Have so many MiB of RAM for the machine, until its folder is removed or its owner ends.

    Where other machines hold them it waits, and says so to ``progress``.

    :raises ProvisionError: the host never has so much, or has it not now and no machine could give it back, or the
        deadline passed.
    """
    wish = _Wish(folder, mib, host)
    try:
        if not wish.is_granted():
            with progress.stage(f"waiting for {gib(mib)} of RAM ({wish.ledger})"):
                wait_until(wish.is_granted, deadline, what="RAM")
    except WaitTimeoutError as error:
        raise wish.refusal(f"there was no RAM for the machine within {deadline.seconds:.0f} s") from error
    finally:
        wish.withdraw()


def reserve_spare(folder: RunFolder, mib: int, host: HostMemory = HOST) -> None:
    """The same for a machine that nobody needs yet: without waiting, and behind everybody who waits.

    :raises ProvisionError: there is no room by now.
    """
    wish = _Wish(folder, mib, host)
    try:
        if not wish.is_granted():
            raise wish.refusal("there is no room for a spare machine")
    finally:
        wish.withdraw()


def note_process(folder: RunFolder, process: int) -> None:
    """Say which process takes what was reserved for the machine, so that it is not counted twice.

    :raises ProvisionError: it cannot be written down.
    """
    try:
        with living(folder.path.parent):
            for claim in _read([folder.path]):
                _write(folder.file(_CLAIM), replace(claim, process=process, started=_start_time(process)))
    except OSError as error:
        raise _unwritable(folder.path.parent, error) from error


def machines_that_fit(home: Path, mib: int, host: HostMemory = HOST) -> int:
    """How many machines that need so many MiB each could be started now beside all that are there.

    :raises OSError: the folder of machines cannot be read.
    """
    with living(home) as folders:
        return max(0, _Ledger(tuple(_read(folders)), host.room()).free // mib)


def _unwritable(home: Path, error: OSError) -> ProvisionError:
    return ProvisionError(f"no RAM can be reserved: {error}", resolution=f"make room below {home}")


def _read(folders: Iterable[Path]) -> Iterator[_Claim]:
    """The claims in the folders; the caller holds the lock of their home."""
    for folder in folders:
        # A folder without one is about to get it, or is just being removed.
        with suppress(FileNotFoundError):
            yield _Claim(**json.loads((folder / _CLAIM).read_text()))


def _write(file: Path, claim: _Claim) -> None:
    """Replace the claim as a whole: the disk may be full."""
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(asdict(claim)))
    draft.replace(file)


@cache
def _place() -> str:
    """Names the processes that see each other by the same ids: this boot of this host, and the container."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"


def _start_time(process: int) -> str:
    """When the process started, which tells it from another one of the same id; empty if it has ended."""
    try:
        # proc_pid_stat(5): the name is in parentheses and may have any characters; the 22nd field.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
