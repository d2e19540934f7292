"""The store of everything that is made once and used by many runs: locks, and publication that is all or nothing.

::

    HOME/                       0700
    ├── locks/NAME              held by flock while somebody works on NAME; removed with the work
    ├── layers/v1/              unpacked layers
    └── disks/v1/               golden disks
        ├── .NAME.XXXX.lock     held by flock for as long as the builder lives
        └── .NAME.XXXX.building/NAME    not published yet

Processes that die leave no lock behind (the kernel lets go of it), and what they were building is recognised by the
lock that nobody holds. A crash of the host is not covered by that, only by the checks of whoever reads the result.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import ConfigError, DiskError, WaitTimeoutError
from pytest_bootc.progress import Progress, Silent

_LOCKS = "locks"
_SCHEMAS = {"layers": "v1", "disks": "v1"}
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MIB = 1 << 20


def default_home() -> Path:
    """``$XDG_CACHE_HOME/pytest-bootc``, or ``~/.cache/pytest-bootc`` (XDG base directory specification).

    :raises ConfigError: this user has no home folder.
    """
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if configured.is_absolute():  # the specification wants others ignored
        return configured / "pytest-bootc"
    try:
        return Path.home() / ".cache" / "pytest-bootc"
    except RuntimeError as error:
        raise ConfigError("there is no place for the cache", resolution="set XDG_CACHE_HOME to a folder") from error


class Cache:
    """The store in one folder, which is made, and freed of what dead builders left in it.

    :raises DiskError: the folder cannot be made or written.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        #: Unpacked layers.
        self.layers = home / "layers" / _SCHEMAS["layers"]
        #: Golden disks.
        self.disks = home / "disks" / _SCHEMAS["disks"]
        with _host_trouble(f"the cache {home} cannot be made", home):
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (home / _LOCKS, self.layers, self.disks):
                folder.mkdir(parents=True, exist_ok=True)
                _remove_leftovers(folder)

    @contextmanager
    def lock(self, name: str, deadline: Deadline, progress: Progress | None = None) -> Iterator[None]:
        """Be the only one, among all threads and processes, that works on ``name`` (a file name).

        :raises DiskError: another one still held it at the deadline.
        """
        path = self.home / _LOCKS / name
        with _host_trouble(f"{name} cannot be locked", self.home):
            descriptor = _try_lock(path)
        if descriptor is None:
            with (progress or Silent()).stage(f"waiting for {_holder(path)}, which works on {name}"):
                descriptor = self._wait_for(path, name, deadline)
        try:
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def _wait_for(self, path: Path, name: str, deadline: Deadline) -> int:
        try:
            # A descriptor is never 0 here: that is standard input. Wrapped all the same, so that it may be.
            return wait_until(lambda: _wrapped(_try_lock(path)), deadline, what=f"the lock {path}")[0]
        except WaitTimeoutError as error:
            raise DiskError(
                f"waited {deadline.seconds:g} s for {_holder(path)}, which works on {name}",
                resolution="let that run finish, or end it; what it leaves behind is cleaned up",
            ) from error

    def publish(self, build: Callable[[Path], None], final: Path) -> None:
        """Have ``build`` make a file or folder at the path that it is given, then move that to ``final`` at once.

        Until then nothing is seen under the final name; what was there before is replaced. Hold the lock of what
        is being built, so that nobody builds it a second time.

        :raises DiskError: the host's disk is full, or refuses to be written.
        """
        stem = f".{final.name}.{secrets.token_hex(4)}"
        work = final.parent / f"{stem}.building"
        with _host_trouble(f"{final.name} cannot be stored in {final.parent}", final.parent), _alive(final.parent, stem):
            work.mkdir()
            try:
                build(work / final.name)
                if final.exists():
                    final.rename(work / "replaced")
                (work / final.name).rename(final)
            finally:
                shutil.rmtree(work, ignore_errors=True)

    def require_free(self, size: int, what: str) -> None:
        """See to it that so many bytes are free.

        :raises DiskError: fewer are.
        """
        free = shutil.disk_usage(self.home).free
        if free < size:
            raise _full(f"there is no room for {what}", self.home, f"needed {size // _MIB} MiB at least")


@contextmanager
def _alive(folder: Path, stem: str) -> Iterator[None]:
    """Hold the lock that tells others that the builder of ``stem`` lives."""
    path = folder / f"{stem}.lock"
    descriptor = _try_lock(path)
    if descriptor is None:
        raise DiskError(f"{path} is held by another process")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _remove_leftovers(folder: Path) -> None:
    stems = {path.stem for pattern in (".*.building", ".*.lock") for path in folder.glob(pattern)}
    for stem in stems:
        lock = folder / f"{stem}.lock"
        descriptor = _try_lock(lock)
        if descriptor is None:  # its builder lives
            continue
        try:
            shutil.rmtree(folder / f"{stem}.building", ignore_errors=True)
        finally:
            lock.unlink(missing_ok=True)
            os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock of the file, or ``None`` while another one has it.

    Whoever lets go removes the file first, so what was just locked may be a file that has no name any more;
    then the next one is tried.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _wrapped(descriptor: int | None) -> tuple[int] | None:
    return None if descriptor is None else (descriptor,)


def _holder(path: Path) -> str:
    try:
        return f"process {int(path.read_text())}"
    except (OSError, ValueError):  # it let go just now, or has not written its number yet
        return "another process"


@contextmanager
def _host_trouble(brief: str, folder: Path) -> Iterator[None]:
    """Map the host's refusals to one error that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _full(brief, folder, str(error)) from error
        raise DiskError(
            brief,
            details=str(error),
            resolution="set XDG_CACHE_HOME to a folder that this user can write",
        ) from error


def _full(brief: str, folder: Path, details: str) -> DiskError:
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return DiskError(
        f"{brief}: the disk is full",
        details=f"{details}\n{usage.free // _MIB} MiB of {usage.total // _MIB} MiB are free on the disk of {folder}",
        resolution="free some space, or set XDG_CACHE_HOME to a folder on a larger disk",
    )
