"""Saved boots: what a machine is started from in a second, instead of booting.

::

    warm/v1/KEY/        0700
    ├── boot.json       what is known of the boot, the keys of the machine, size and time of each file
    ├── ram             0600: the guest's RAM; clones map it privately, nobody opens it for writing
    ├── state           the rest of the machine
    ├── var.qcow2       what the boot wrote to /var
    ├── initrd          what the machine booted with: a clone that reboots needs the same
    └── console.log     what the boot printed; every run judges it anew

A key names all that the state depends on. Another QEMU, processor, disk, shape or file of ours is another key, and so
a cold boot.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pytest_bootc.cache import About, Cache
from pytest_bootc.deadline import Deadline
from pytest_bootc.machine.inject import Identity, guest_files
from pytest_bootc.machine.qemu_command import Engine, Memory, Wiring, plan
from pytest_bootc.model import LiveDisk, MachineSpec
from pytest_bootc.progress import Progress

RECIPE = 1
"""Counts up whenever what a saved boot has in it is to become something else."""

RAM, STATE, VAR, INITRD, CONSOLE = "ram", "state", "var.qcow2", "initrd", "console.log"
_RECORD = "boot.json"
_FILES = (RAM, STATE, VAR, INITRD, CONSOLE)
_NOWHERE = Path("/nowhere")


@dataclass(frozen=True)
class Boot:
    """What is known of a boot that has been saved.

    ``saved_at`` is in seconds since the epoch, and so is ``first_timer``: when the first timer elapses that goes by
    the wall clock, if there is one.
    """

    boot_id: str
    time_factor: float
    saved_at: float
    first_timer: float | None
    identity: Identity = field(repr=False)

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Boot:
        """What :func:`dataclasses.asdict` made of one, after a file.

        :raises TypeError: it is of another version.
        :raises KeyError: it has no keys of a machine.
        """
        return cls(**{**said, "identity": Identity(**said["identity"])})


@dataclass(frozen=True)
class SavedBoot:
    """An entry of the store."""

    folder: Path
    boot: Boot

    def file(self, name: str) -> Path:
        """One of its files."""
        return self.folder / name


def warm_key(engine: Engine, version: str, spec: MachineSpec, disk: LiveDisk) -> str:
    """Names what the saved state of a machine depends on."""
    wiring = Wiring(
        qmp=_NOWHERE, control=_NOWHERE, events=_NOWHERE, nbd=_NOWHERE, console=_NOWHERE, overlay=_NOWHERE,
        initrd=_NOWHERE, variables=_NOWHERE, memory=Memory(_NOWHERE),
    )  # fmt: skip
    files = guest_files(Identity("", "", "", ""), disk.ssh_units)
    parts = [
        RECIPE,
        disk.key,
        asdict(spec) | {"network": spec.network.value},
        # The whole command line: devices, sizes, kernel arguments, accelerator, processor.
        [process["argv"] for process in plan(engine, wiring, spec, disk)],
        version,
        _identity_of(engine.qemu),
        [(file.path, file.mode, (file.content or b"").hex(), file.target) for file in files],
        platform.release(),
        _processor(),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _identity_of(program: Path) -> list[int]:
    """The same version, built anew, may save something else."""
    status = program.stat()
    return [status.st_size, status.st_mtime_ns]


def _processor() -> list[str]:
    """Model, microcode and abilities of the host's processor (proc_cpuinfo(5))."""
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags", "Features")
    lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    return [line for line in lines if line.partition(":")[0].strip() in wanted]


class RefusedError(Exception):
    """Another run has booted the same, and its boot was not fit to be saved."""


class WarmStore:
    """The saved boots of one key."""

    def __init__(self, cache: Cache, refusals: Path, key: str) -> None:
        self._cache = cache
        self._folder = cache.warm / key
        self._refusal = refusals / f"not-saved-{key}"

    def find(self) -> SavedBoot | None:
        """The saved boot; ``None`` where there is none, or its files are not what they were when it was saved."""
        try:
            said = json.loads((self._folder / _RECORD).read_bytes())
            files = {name: tuple(stamp) for name, stamp in said["files"].items()}
            boot = Boot.read(said["boot"])
            whole = files == {name: _stamp(self._folder / name) for name in _FILES}
        except (OSError, ValueError, KeyError, TypeError):  # not there, or not written by us
            return None
        return SavedBoot(self._folder, boot) if whole else None

    @contextmanager
    def saving(self, deadline: Deadline, progress: Progress) -> Iterator[None]:
        """Be the only one that boots in order to save.

        :raises DiskError: another one was still at it at the deadline.
        :raises RefusedError: another one was at it, and found the boot unfit.
        """
        began = time.time()

        def check() -> None:
            if self._refusal.exists() and self._refusal.stat().st_mtime > began:
                raise RefusedError(self._refusal.read_text())

        with self._cache.lock(f"warm-{self._folder.name}", deadline, progress, check):
            check()
            yield

    def refuse(self, why: str) -> None:
        """Tell those who wait for it that this boot is not fit to be saved."""
        self._refusal.parent.mkdir(parents=True, exist_ok=True)
        self._refusal.write_text(why)

    def publish(self, boot: Boot, fill: Callable[[Path], None], disk: LiveDisk) -> None:
        """Store a boot of a disk; ``fill`` writes its files into a folder. Hold :meth:`saving` meanwhile.

        :raises DiskError: the host's disk is full, or refuses to be written.
        """

        def build(folder: Path) -> None:
            folder.mkdir(mode=0o700)
            fill(folder)
            record = {"boot": asdict(boot), "files": {name: _stamp(folder / name) for name in _FILES}}
            (folder / _RECORD).write_text(json.dumps(record))

        image = disk.image
        about = About(str(image.reference), str(image.digest), needs=(self._cache.name_of(disk.folder),))
        self._cache.publish(build, self._folder, about)

    def discard(self) -> None:
        """Have nobody use the entry any more. It stays until another one takes its place: clones may be running."""
        (self._folder / _RECORD).unlink(missing_ok=True)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file that has holes, such as a guest's RAM, without them; others may not read the copy."""
    with source.open("rb") as read, target.open("xb") as written:
        os.fchmod(written.fileno(), 0o600)
        size = os.fstat(read.fileno()).st_size
        end = 0
        while (begin := _next_data(read.fileno(), end)) is not None:
            end = os.lseek(read.fileno(), begin, os.SEEK_HOLE)
            while begin < end:
                begin += os.copy_file_range(read.fileno(), written.fileno(), end - begin, begin, begin)
        written.truncate(size)


def _next_data(descriptor: int, offset: int) -> int | None:
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # there is none behind it
            return None
        raise
