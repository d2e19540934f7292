"""Locks between processes, by flock(2): the kernel lets go of them when their holder dies, however it does."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PROCESSES = Path("/proc")
_SHOWN = 60  # characters of a command line


class Held:
    """A lock file while it is locked; leaving the context unlocks it, and removes it where nobody else has it.

    The lock belongs to the open file: a process that is given :meth:`fileno` holds it too, until both have let go.
    """

    def __init__(self, path: Path, descriptor: int, *, shared: bool) -> None:
        self._path = path
        self._descriptor = descriptor
        self._shared = shared
        self._is_given = False

    @classmethod
    def attempt(cls, path: Path, *, shared: bool = False, signed: bool = True) -> Held | None:
        """Lock the file, for itself or together with others who share it; ``None`` while that cannot be.

        Who has it for itself says so in it, unless it is not ``signed``: on a full disk nothing can be written.

        Whoever lets go removes the file first, so what was just locked may be a file that has no name any more;
        then the one that has it now is tried.
        """
        operation = fcntl.LOCK_NB | (fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, operation)
                if os.path.samestat(path.stat(), os.fstat(descriptor)):
                    held = cls(path, descriptor, shared=shared)
                    return held._signed() if signed and not shared else held
            except BlockingIOError:
                os.close(descriptor)
                return None
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def fileno(self) -> int:
        """The descriptor, for a process that is to hold the lock as well (``pass_fds``)."""
        self._is_given = True
        return self._descriptor

    def _signed(self) -> Held:
        """Say in the file who has it."""
        try:
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            # On a full disk its name goes with the lock, as when that is let go.
            self._path.unlink(missing_ok=True)
            raise
        return self

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_given and self._shared:
            os.close(self._descriptor)
            remove_if_free(self._path)  # asked anew: a process that was given the descriptor shares even its changes
            return
        try:
            if not self._shared or self._is_last():
                self._path.unlink(missing_ok=True)
        finally:
            os.close(self._descriptor)

    def _is_last(self) -> bool:
        """Whether nobody else shares the lock; it is no longer held afterwards, where somebody does.

        Another thread's child has a copy of the descriptor until it has become its program. It is the same lock, and
        so in nobody's way here; after a close it would be.
        """
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_NB | fcntl.LOCK_EX)
            # Between the two locks there was none, and somebody may have removed the file.
            return os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except (BlockingIOError, FileNotFoundError):
            return False


def remove_if_free(path: Path) -> bool:
    """Remove a lock file that nobody has locked; whether it was so."""
    held = Held.attempt(path, signed=False)
    if held is None:
        return False
    with held:
        return True


def holder(path: Path) -> str:
    """Who has locked a file for itself, in words."""
    try:
        return f"process {int(path.read_text())}"
    except (OSError, ValueError):  # it let go just now, or has not written its number yet
        return "another process"


def holders(path: Path) -> tuple[str, ...]:
    """All who hold a lock on a file, in words; none where nobody does.

    They are the processes that have it open (proc(5)); those of other users and containers cannot be seen.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return ()
    if remove_if_free(path):
        return ()
    return tuple(_process(number) for number in sorted(set(_openers(status)))) or ("another process",)


def _openers(status: os.stat_result) -> Iterator[int]:
    for link in _PROCESSES.glob("[0-9]*/fd/*"):
        with suppress(OSError):  # it ended or closed it just now, or is not ours to look at
            if os.path.samestat(link.stat(), status):
                yield int(link.parts[-3])


def _process(number: int) -> str:
    try:
        words = (_PROCESSES / str(number) / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:  # it ended just now
        words = []
    line = " ".join(word.decode(errors="backslashreplace") for word in words)
    text = line if line.isprintable() else line.encode("unicode_escape").decode("ascii")
    return f"process {number} ({text if len(text) <= _SHOWN else text[: _SHOWN - 3] + '...'})"
