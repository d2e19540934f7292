"""The store of everything that is made once and used by many runs: locks, and publication that is all or nothing.

::

    HOME/                       0700
    ├── locks/NAME              held by flock while somebody works on NAME; removed with the work
    │   └── STORE.KEY.lease     shared by all who use an entry; removed with the last of them
    ├── tools/NAME-VERSION/     programs that the host lacks
    ├── downloads/v1/           blobs that have arrived in part
    ├── layers/v1/              unpacked layers
    ├── warm/v1/                saved states of machines
    └── disks/v2/               golden disks
        ├── KEY/                an entry; its time of modification is that of its last use
        │   └── entry.json      which image it was made for, and which entries of other stores it cannot be without
        ├── .NAME.XXXX.lock     held by flock for as long as the builder lives
        └── .NAME.XXXX.building/NAME    not published yet

Processes that die leave no lock behind (the kernel lets go of it), and what they were building is recognised by the
lock that nobody holds. A crash of the host is not covered by that, only by the checks of whoever reads the result.
The folder v1, v2 ... says how the entries of a store are to be read; those of other versions are left alone.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import ConfigError, DiskError, WaitTimeoutError
from pytest_bootc.locking import Held, holder, holders, remove_if_free
from pytest_bootc.progress import Progress, Silent

_LOCKS = "locks"
_ABOUT = "entry.json"
#: What is stored, and the version of the folder that it is stored in.
SCHEMAS = {"layers": "v1", "disks": "v2", "warm": "v1", "downloads": "v1"}
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


@dataclass(frozen=True)
class About:
    """What an entry says of itself to whoever lists or empties the cache.

    ``image`` is the reference that it was made for and ``digest`` the manifest's, where there are such; ``needs`` are
    the names (:meth:`Cache.name_of`) of the entries that it cannot be without: as long as it is there, they stay.
    """

    image: str = ""
    digest: str = ""
    needs: tuple[str, ...] = ()


class Draft:
    """Something that is being made, at ``path``, which is not there yet; nobody sees it until it is published."""

    def __init__(self, final: Path, work: Path) -> None:
        self._final = final
        self._work = work
        self.path = work / final.name

    def publish(self, about: About | None = None) -> None:
        """Move what was made to its place at once; what was there before is replaced.

        ``about`` is for a folder, and written into it.

        :raises DiskError: the host's disk is full, or refuses to be written.
        """
        with _host_trouble(*_storing(self._final)):
            if about is not None:
                (self.path / _ABOUT).write_text(json.dumps(asdict(about), indent=1))
            if self._final.exists():
                self._final.rename(self._work / ".replaced")
            self.path.rename(self._final)


class Cache:
    """The store in one folder, which is made, and freed of what dead builders left in it.

    :raises DiskError: the folder cannot be made or written.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._stores = {name: home / name / version for name, version in SCHEMAS.items()}
        #: Unpacked layers.
        self.layers = self._stores["layers"]
        #: Golden disks.
        self.disks = self._stores["disks"]
        #: Saved states of machines.
        self.warm = self._stores["warm"]
        #: Blobs that have arrived in part.
        self.downloads = self._stores["downloads"]
        #: Programs that the host lacks, each in a folder with its version.
        self.tools = home / "tools"
        with _host_trouble(f"the cache {home} cannot be made", home):
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (home / _LOCKS, *self._stores.values()):
                folder.mkdir(parents=True, exist_ok=True)
            for folder in (*self._stores.values(), self.tools):
                _remove_leftovers(folder)
            for path in (home / _LOCKS).iterdir():
                remove_if_free(path)

    @contextmanager
    def lock(
        self, name: str, deadline: Deadline, progress: Progress = _SILENT, check: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Be the only one, among all threads and processes, that works on ``name`` (a file name).

        While another one does, that is announced, and ``check`` is called again and again; it raises to give up.

        :raises DiskError: another one still held the lock at the deadline.
        """
        path = self.home / _LOCKS / name

        def attempt() -> Held | None:
            check()
            with _host_trouble(f"{name} cannot be locked", self.home):
                return Held.attempt(path)

        held = attempt()
        if held is None:
            with progress.stage(f"waiting for {holder(path)}, which works on {name}"):
                held = self._wait(attempt, path, deadline)
        with held:
            yield

    def _wait(self, attempt: Callable[[], Held | None], path: Path, deadline: Deadline) -> Held:
        try:
            return wait_until(attempt, deadline, what=f"the lock {path}")
        except WaitTimeoutError as error:
            raise DiskError(
                f"waited {deadline.seconds:g} s for {holder(path)}, which works on {path.name}",
                resolution="let that run finish, or end it; what it leaves behind is cleaned up",
            ) from error

    @contextmanager
    def lease(self, final: Path, deadline: Deadline) -> Iterator[Held]:
        """Use an entry, together with any others: while the context lasts it is not removed.

        The entry need not be there yet. So take the lease, then look for it, and if need be make it. A process that
        is given the lease's ``fileno()`` holds it too. The time of its last use becomes now, and again at the end.

        :raises DiskError: it was still being removed at the deadline, or the cache cannot be written.
        """
        path = self._lease(final)

        def attempt() -> Held | None:
            with _host_trouble(f"{self.name_of(final)} cannot be reserved", self.home):
                return Held.attempt(path, shared=True)

        with self._wait(attempt, path, deadline) as held:
            _touch(final)
            yield held
            _touch(final)

    def users(self, final: Path) -> tuple[str, ...]:
        """The processes that have leases on an entry, in words."""
        return holders(self._lease(final))

    def store(self, name: str) -> Path:
        """The folder of a store; its entries are those that do not begin with a dot."""
        return self._stores[name]

    def name_of(self, final: Path) -> str:
        """The name of an entry in any version of the cache: ``STORE/KEY``."""
        return f"{final.parent.parent.name}/{final.name}"

    def about(self, final: Path) -> About | None:
        """What an entry says of itself; ``None`` where it is not there or says nothing."""
        try:
            said = json.loads((final / _ABOUT).read_bytes())
            return About(said["image"], said["digest"], tuple(said["needs"]))
        except (OSError, ValueError, KeyError, TypeError):  # not there, or not written by us
            return None

    def publish(self, build: Callable[[Path], None], final: Path, about: About | None = None) -> None:
        """Have ``build`` make a file or folder at the path that it is given, then move that to ``final`` at once.

        Until then nothing is seen under the final name; what was there before is replaced. Hold the lock of what
        is being built, so that nobody builds it a second time.

        :raises DiskError: the host's disk is full, or refuses to be written.
        """
        with self.draft(final) as draft, _host_trouble(*_storing(final)):
            build(draft.path)
            draft.publish(about)

    @contextmanager
    def draft(self, final: Path) -> Iterator[Draft]:
        """Make what is to become ``final``; leaving the context removes what was not published.

        :raises DiskError: the host's disk is full, or refuses to be written.
        """
        with _host_trouble(*_storing(final)):
            held, work = _new_work(final.name, self._place(final))
        with held:
            try:
                with _host_trouble(*_storing(final)):
                    work.mkdir()
                yield Draft(final, work)
            finally:
                shutil.rmtree(work, ignore_errors=True)

    def remove(self, final: Path, needed: Callable[[], bool] = lambda: False) -> bool:
        """Remove an entry, unless it is in use. It disappears at once, however long it takes to give back the space.

        ``needed`` is asked while nobody can begin to use it, and may keep it.

        :raises DiskError: the host refuses.
        """
        with _host_trouble(f"{self.name_of(final)} cannot be removed", self.home):
            held = Held.attempt(self._lease(final))
            if held is None:
                return False
            own, work = _new_work(final.name, final.parent)
            with own:
                with held:
                    if needed() or not final.exists():
                        return False
                    work.mkdir()
                    final.rename(work / final.name)
                shutil.rmtree(work)
            return True

    def _place(self, final: Path) -> Path:
        """Where to make something: in the folder of its store, which is where leftovers are looked for."""
        stores = {*self._stores.values(), self.tools}
        return next((folder for folder in final.parents if folder in stores), final.parent)

    def _lease(self, final: Path) -> Path:
        return self.home / _LOCKS / f"{self.name_of(final).replace('/', '.')}.lease"

    def require_free(self, size: int, what: str) -> None:
        """See to it that so many bytes are free.

        :raises DiskError: fewer are.
        """
        free = shutil.disk_usage(self.home).free
        if free < size:
            raise _full(f"there is no room for {what}", self.home, f"needed {size // _MIB} MiB at least")


def _touch(final: Path) -> None:
    with suppress(FileNotFoundError):  # it may have to be made yet
        os.utime(final)


def _storing(final: Path) -> tuple[str, Path]:
    return f"{final.name} cannot be stored in {final.parent}", final.parent


def _new_work(name: str, place: Path) -> tuple[Held, Path]:
    """A held lock, and the folder that may be made under it."""
    while True:
        stem = place / f".{name}.{secrets.token_hex(4)}"
        held = Held.attempt(stem.with_name(f"{stem.name}.lock"))
        if held is not None:  # else somebody who looks for leftovers was faster than we
            return held, stem.with_name(f"{stem.name}.building")


def _remove_leftovers(folder: Path) -> None:
    stems = {path.stem for pattern in (".*.building", ".*.lock") for path in folder.glob(pattern)}
    for stem in stems:
        held = Held.attempt(folder / f"{stem}.lock")
        if held is not None:  # else its builder lives
            with held:
                shutil.rmtree(folder / f"{stem}.building", ignore_errors=True)


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
