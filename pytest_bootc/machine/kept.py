"""Machines that are kept after their run: what is written down of them, and how they are found again.

A machine that may be kept has a record in its folder (:mod:`rundir`), for this user only, with all that a later
process needs to use it. A later run uses it where the record says that it is the same: the image by its digest, the
disk, the machine's shape, QEMU, and what the machine brings along.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import BackendError
from pytest_bootc.machine.keeper import Keeper
from pytest_bootc.machine.qemu_command import Engine
from pytest_bootc.machine.rundir import living
from pytest_bootc.machine.warm import Boot, warm_key
from pytest_bootc.model import DiskFile, GoldenDisk, LiveDisk, MachineSpec, SSHEndpoint

#: The supervisor's socket, in a machine's folder of sockets.
KEEPER = "keeper"
_RECORD = "kept.json"
#: Made when a test begins that leaves a machine unfit for others.
_SPOILED = "spoiled"
_SCHEMA = 1


@dataclass(frozen=True)
class Record:
    """What is known of a machine that is kept, or may be.

    ``image`` is the reference as it was typed, or the path of a disk; ``digest`` the manifest's, if there is one;
    ``key`` names all else that has to be the same. ``runs`` counts those that have used it, ``boot`` says how the
    guest came up, and ``up_since`` when, in seconds since the epoch.
    """

    image: str
    digest: str
    key: str
    memory_mib: int
    cpus: int
    emulator: str
    accelerator: str
    sockets: str
    console: str
    up_since: float
    runs: int
    boot: Boot
    endpoint: SSHEndpoint | None
    schema: int = _SCHEMA


@dataclass(frozen=True)
class Kept:
    """A machine that is kept, or may be."""

    folder: Path
    record: Record

    @property
    def name(self) -> str:
        """The machine's name."""
        return self.folder.name

    @property
    def is_spoiled(self) -> bool:
        """Whether a test has changed it in a way that others must not see."""
        return (self.folder / _SPOILED).exists()

    def call(self, deadline: Deadline) -> Keeper:
        """Connect to who keeps it.

        :raises BackendError: nobody does any more.
        """
        return Keeper(Path(self.record.sockets) / KEEPER, deadline)


def write_record(folder: Path, record: Record) -> None:
    """Write down what is known of a machine, in its folder.

    :raises OSError: the host's disk is full.
    """
    scratch = folder / f".{_RECORD}"
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(record), file)
    scratch.rename(folder / _RECORD)


def spoil(folder: Path) -> None:
    """Say that no other test may use the machine, if it is kept."""
    (folder / _SPOILED).touch()


def find_kept(home: Path) -> list[Kept]:
    """The machines that are kept or may be, by name; ``home`` is the folder of all machines.

    :raises BackendError: the folder cannot be looked at.
    """
    try:
        with living(home) as folders:
            found = [(folder, _read(folder)) for folder in folders]
    except OSError as error:
        raise BackendError(f"{home} cannot be looked at: {error}") from error
    return [Kept(folder, record) for folder, record in found if record is not None]


def _read(folder: Path) -> Record | None:
    try:
        said = json.loads((folder / _RECORD).read_bytes())
        if said["schema"] != _SCHEMA:
            return None
        boot = Boot.read(said.pop("boot"))
        endpoint = said.pop("endpoint")
        login = None if endpoint is None else SSHEndpoint(**endpoint)
        return Record(**said, boot=boot, endpoint=login)
    except (OSError, ValueError, KeyError, TypeError):  # not there, or of another version
        return None


def image_of(disk: GoldenDisk) -> tuple[str, str]:
    """What a disk was made of: the reference and the digest, or the path of a file and nothing."""
    if isinstance(disk, DiskFile):
        return str(disk.path), ""
    return str(disk.image.reference), str(disk.image.digest)


def kept_key(engine: Engine, version: str, spec: MachineSpec, disk: GoldenDisk) -> str:
    """Names what two machines have in common of which one can stand for the other."""
    if isinstance(disk, LiveDisk):
        return warm_key(engine, version, spec, disk)
    status = disk.path.stat()
    parts = [str(disk.path), disk.format, status.st_size, status.st_mtime_ns, asdict(spec), asdict(engine), version]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]
