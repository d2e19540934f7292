"""Files of the guest, over SFTP."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager

import paramiko

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import SSHCommandError, SSHConnectError
from pytest_bootc.ssh.border import said
from pytest_bootc.ssh.connection import Connection

_PIECE = 32 << 10  # as much as every server sends in one answer
_BATCH = 4 << 20


class Files:
    """Reading and writing, one file at a time, over one SFTP session that is opened with the first file."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._turn = threading.Lock()
        self._open: tuple[paramiko.Channel, paramiko.SFTPClient] | None = None

    def fetch(self, path: str, deadline: Deadline) -> Generator[bytes, None, None]:
        """The content of a file, piece by piece. Other files wait until the iterator is exhausted or closed.

        :raises SSHCommandError: it cannot be read, or not within the deadline.
        """
        with self._access(f"{path} cannot be read", deadline) as sftp, sftp.open(path, "rb") as source:
            for piece in _pieces(source):
                yield piece
                _check(deadline)

    def send(self, chunks: Iterable[bytes], path: str, mode: int | None, deadline: Deadline) -> None:
        """Write a file; ``mode``, its permission bits, is set before anything is in it.

        :raises SSHCommandError: it cannot be written, or not within the deadline.
        """
        with self._access(f"{path} cannot be written", deadline) as sftp, sftp.open(path, "wb") as sink:
            sink.set_pipelined(True)
            if mode is not None:
                sink.chmod(mode)
            for chunk in chunks:
                sink.write(chunk)
                _check(deadline)

    @contextmanager
    def _access(self, failure: str, deadline: Deadline) -> Iterator[paramiko.SFTPClient]:
        if not self._turn.acquire(timeout=deadline.remaining()):
            raise SSHCommandError(f"{failure}: other files took the {deadline.seconds:g} s")
        try:
            with self._connection.working(f"working on a file ({failure})"):
                channel = None
                try:
                    channel, client = self._open or self._opened(failure, deadline)
                    channel.settimeout(deadline.remaining())
                    yield client
                except TimeoutError as error:
                    self._drop()  # an answer may have been read in half
                    raise SSHCommandError(f"{failure} within {deadline.seconds:g} s") from error
                except OSError as error:
                    if channel is None or channel.closed:
                        raise
                    raise SSHCommandError(f"{failure} on {self._connection.name}: {error.strerror or error}") from error
        except SSHConnectError:
            self._drop()
            raise
        finally:
            self._turn.release()

    def _opened(self, failure: str, deadline: Deadline) -> tuple[paramiko.Channel, paramiko.SFTPClient]:
        channel = None
        try:
            channel = self._connection.open_session(lambda channel: channel.invoke_subsystem("sftp"), deadline)
            self._open = channel, paramiko.SFTPClient(channel)
        except (paramiko.SSHException, EOFError) as error:
            if channel is not None:
                self._connection.end_session(channel)
            if not self._connection.up():
                raise
            raise SSHCommandError(
                f"{failure} on {self._connection.name}: its sshd serves no files",
                details=said(error),
                resolution="`Subsystem sftp internal-sftp` in sshd_config(5) makes it do so without another program",
            ) from error
        return self._open

    def _drop(self) -> None:
        if self._open is not None:
            self._connection.end_session(self._open[0])
            self._open = None


def _pieces(source: paramiko.SFTPFile) -> Iterator[bytes]:
    """What is in an open file. Of its known size, 4 MiB are asked for at a time; the files of /proc have none."""
    size = source.stat().st_size or 0
    for start in range(0, size, _BATCH):
        offsets = range(start, min(start + _BATCH, size), _PIECE)
        yield from source.readv([(offset, min(_PIECE, size - offset)) for offset in offsets])
    while piece := source.read(_PIECE):
        yield piece


def _check(deadline: Deadline) -> None:
    if deadline.expired():
        raise TimeoutError
