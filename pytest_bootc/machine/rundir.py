"""The folders of a running machine: made with an owner, and removed with it.

Disks and logs lie in the cache, sockets in a folder with a short name (the path of a socket ends at 107 bytes,
unix(7)). A machine's folder holds a file that its owner has locked: a folder whose file nobody locks has lost its
owner and is removed by whoever comes next.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_bootc.errors import ProvisionError

_OWNER = "owner"
_SOCKETS = "pytest-bootc-"
_LONGEST = 70  # bytes of the folder in which those of sockets are made


class RunFolder:
    """Folders for one machine."""

    _owner: int | None = None
    _left = False

    def __init__(self, home: Path) -> None:
        """Make them below ``home``, and remove those of machines whose owner is gone.

        :raises ProvisionError: the host's disk is full or read-only, or there is no place for sockets.
        """
        try:
            with living(home):
                place = _short_folder()
                self.path = Path(tempfile.mkdtemp(prefix="vm-", dir=home))
                self.sockets = place / f"{_SOCKETS}{self.path.name.removeprefix('vm-')}"
                try:
                    self._owner = os.open(self.path / _OWNER, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                    fcntl.flock(self._owner, fcntl.LOCK_EX)
                    # Written down before it is there: whoever dies in between leaves nothing that nobody knows of.
                    os.write(self._owner, os.fsencode(self.sockets))
                    self.sockets.mkdir(mode=0o700)
                except OSError:
                    self.remove()
                    raise
        except OSError as error:
            raise ProvisionError(
                f"no folder for a machine can be made: {error}", resolution=f"make room below {home}"
            ) from error

    @classmethod
    def joined(cls, path: Path, sockets: Path, owner: int) -> RunFolder:
        """Those of a machine that others have made; ``owner`` is the descriptor of the file that they have locked."""
        folder = cls.__new__(cls)
        folder.path, folder.sockets, folder._owner = path, sockets, owner
        return folder

    @property
    def lock(self) -> int:
        """The descriptor of the file that is locked: a process that is given it is an owner, too.

        :raises ProvisionError: the folders were removed, or left to another owner.
        """
        if self._owner is None:
            raise ProvisionError(f"{self.name} has another owner")
        return self._owner

    @property
    def name(self) -> str:
        """The machine's name, unique on this host."""
        return self.path.name

    def socket(self, name: str) -> Path:
        """The path of a socket."""
        return self.sockets / name

    def file(self, name: str) -> Path:
        """The path of a file."""
        return self.path / name

    def remove(self) -> None:
        """Remove both folders; removing what is gone, or was left to another owner, does nothing."""
        if self._left:
            return
        for folder in (self.sockets, self.path):
            shutil.rmtree(folder, ignore_errors=True)
        self.leave()

    def leave(self) -> None:
        """Leave them to another owner."""
        self._left = True
        if self._owner is not None:
            os.close(self._owner)
            self._owner = None


@contextmanager
def living(home: Path) -> Iterator[list[Path]]:
    """The folders of machines that have an owner; for as long as the context lasts nobody else can look.

    :raises OSError: the host's disk is full or read-only.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _sweep(home)
        yield sorted(home.glob("vm-*"))


def _sweep(home: Path) -> None:
    """Remove the folders of machines whose owner is gone; the caller holds the lock of ``home``."""
    for folder in home.glob("vm-*"):
        try:
            with (folder / _OWNER).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                sockets = Path(os.fsdecode(file.read()))
        except BlockingIOError:
            continue
        except FileNotFoundError:
            # Its owner ended while making or while removing it.
            sockets = Path()
        if sockets.name.startswith(_SOCKETS):  # on a full disk it may be only the beginning of a path
            shutil.rmtree(sockets, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def _short_folder() -> Path:
    """Where the folders of sockets are made.

    :raises ProvisionError: there is no such place.
    """
    places = (os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp", "/var/tmp")
    for place in places:
        if place.startswith("/") and len(os.fsencode(place)) <= _LONGEST and os.access(place, os.W_OK | os.X_OK):
            return Path(place)
    raise ProvisionError(
        "there is no folder for sockets that can be written and has a short name",
        details=f"looked at {', '.join(place for place in places if place)}",
        resolution=f"set XDG_RUNTIME_DIR to one with a path of at most {_LONGEST} bytes",
    )
