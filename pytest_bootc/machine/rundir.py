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
from pathlib import Path

from pytest_bootc.errors import ProvisionError

_OWNER = "owner"


class RunFolder:
    """Folders for one machine."""

    def __init__(self, home: Path) -> None:
        """Make them below ``home``, and remove those of machines whose owner is gone.

        :raises ProvisionError: the host's disk is full or read-only.
        """
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (home / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                _sweep(home)
                self.sockets = Path(tempfile.mkdtemp(prefix="pytest-bootc-", dir=_short_folder()))
                self.path = Path(tempfile.mkdtemp(prefix="vm-", dir=home))
                self._owner = (self.path / _OWNER).open("w")
                fcntl.flock(self._owner, fcntl.LOCK_EX)
                self._owner.write(str(self.sockets))
                self._owner.flush()
        except OSError as error:
            raise ProvisionError(
                f"no folder for a machine can be made: {error}", resolution=f"make room below {home}"
            ) from error

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
        """Remove both folders; removing what is gone does nothing."""
        for folder in (self.sockets, self.path):
            shutil.rmtree(folder, ignore_errors=True)
        self._owner.close()


def _sweep(home: Path) -> None:
    """Remove the folders of machines whose owner is gone; the caller holds the lock of ``home``."""
    for folder in home.glob("vm-*"):
        try:
            with (folder / _OWNER).open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                sockets = file.read().strip()
        except BlockingIOError:
            continue
        except FileNotFoundError:
            # Its owner ended while making or while removing it.
            sockets = ""
        if sockets:
            shutil.rmtree(sockets, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def _short_folder() -> str:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return runtime if runtime and len(runtime) < 40 and os.access(runtime, os.W_OK) else tempfile.gettempdir()
