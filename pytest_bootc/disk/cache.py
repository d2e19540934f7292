"""The store of everything that is made once and used by many runs: locks, and publication that is all or nothing.

::

    HOME/                       0700
    ├── locks/NAME              held by flock while somebody works on NAME; removed with the work
    ├── tools/NAME-VERSION/     programs that the host lacks
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
_FULL_WORDS = ("No space left on device", "Disk quota exceeded")  # of programs, which run with the texts of C
_MIB = 1 << 20
_SILENT = Silent()


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
        #: Programs that the host lacks, each in a folder with its version.
        self.tools = home / "tools"
        with _host_trouble(f"the cache {home} cannot be made", home):
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (home / _LOCKS, self.layers, self.disks):
                folder.mkdir(parents=True, exist_ok=True)
            for folder in (self.layers, self.disks, self.tools):
                _remove_leftovers(folder)
            for path in (home / _LOCKS).iterdir():
                _remove_if_free(path)

    @contextmanager
    def lock(
        self, name: str, deadline: Deadline, progress: Progress = _SILENT, check: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Be the only one, among all threads and processes, that works on ``name`` (a file name).

        While another one does, that is announced, and ``check`` is called again and again; it raises to give up.

        :raises DiskError: another one still held the lock at the deadline.
        """
        path = self.home / _LOCKS / name

        def attempt() -> _Held | None:
            check()
            with _host_trouble(f"{name} cannot be locked", self.home):
                return _Held.attempt(path)

        held = attempt()
        if held is None:
            with progress.stage(f"waiting for {_holder(path)}, which works on {name}"):
                held = self._wait(attempt, path, deadline)
        with held:
            yield

    def _wait(self, attempt: Callable[[], _Held | None], path: Path, deadline: Deadline) -> _Held:
        try:
            return wait_until(attempt, deadline, what=f"the lock {path}")
        except WaitTimeoutError as error:
            raise DiskError(
                f"waited {deadline.seconds:g} s for {_holder(path)}, which works on {path.name}",
                resolution="let that run finish, or end it; what it leaves behind is cleaned up",
            ) from error

    def publish(self, build: Callable[[Path], None], final: Path) -> None:
        """Have ``build`` make a file or folder at the path that it is given, then move that to ``final`` at once.

        Until then nothing is seen under the final name; what was there before is replaced. Hold the lock of what
        is being built, so that nobody builds it a second time.

        :raises DiskError: the host's disk is full, or refuses to be written.
        """
        with _host_trouble(f"{final.name} cannot be stored in {final.parent}", final.parent):
            held, work = _new_work(final)
            with held:
                self._publish(build, final, work)

    def _publish(self, build: Callable[[Path], None], final: Path, work: Path) -> None:
        work.mkdir()
        try:
            made = work / final.name
            build(made)
            if final.exists():
                final.rename(work / ".replaced")
            made.rename(final)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def require_free(self, size: int, what: str) -> None:
        """See to it that so many bytes are free.

        :raises DiskError: fewer are.
        """
        free = shutil.disk_usage(self.home).free
        if free < size:
            raise _full(f"there is no room for {what}", self.home, f"needed {size // _MIB} MiB at least")


def _new_work(final: Path) -> tuple[_Held, Path]:
    """A held lock, and the folder that may be made under it."""
    while True:
        stem = f".{final.name}.{secrets.token_hex(4)}"
        held = _Held.attempt(final.with_name(f"{stem}.lock"))
        if held is not None:  # else somebody who looks for leftovers was faster than we
            return held, final.with_name(f"{stem}.building")


def _remove_leftovers(folder: Path) -> None:
    stems = {path.stem for pattern in (".*.building", ".*.lock") for path in folder.glob(pattern)}
    for stem in stems:
        held = _Held.attempt(folder / f"{stem}.lock")
        if held is not None:  # else its builder lives
            with held:
                shutil.rmtree(folder / f"{stem}.building", ignore_errors=True)


def _remove_if_free(lock: Path) -> None:
    held = _Held.attempt(lock)
    if held is not None:
        with held:
            pass


class _Held:
    """A lock file while it is locked; leaving the context removes and unlocks it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def attempt(cls, path: Path) -> _Held | None:
        """Lock the file, or return ``None`` while another one has it.

        Whoever lets go removes the file first, so what was just locked may be a file that has no name any more;
        then the one that has it now is tried.
        """
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(path.stat(), os.fstat(descriptor)):
                    return cls(path, descriptor)._signed()
            except BlockingIOError:
                os.close(descriptor)
                return None
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _signed(self) -> _Held:
        """Say in the file who has it."""
        try:
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            # On a full disk its name goes with the lock, as when that is let go.
            self._path.unlink(missing_ok=True)
            raise
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


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
    except DiskError as error:
        if not error.resolution and any(words in error.details for words in _FULL_WORDS):
            raise _full(error.brief, folder, error.details) from error
        raise


def _full(brief: str, folder: Path, details: str) -> DiskError:
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return DiskError(
        f"{brief}: the disk is full",
        details=f"{details}\n{usage.free // _MIB} MiB of {usage.total // _MIB} MiB are free on the disk of {folder}",
        resolution="free some space, or set XDG_CACHE_HOME to a folder on a larger disk",
    )
