"""The way to a supervisor that keeps a machine: its socket, and what is said over it (:mod:`supervisor`)."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from pytest_bootc import command
from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import BackendError
from pytest_bootc.model import HeldLogin

_MOST_DESCRIPTORS = 8
_PIECE = 1 << 16


class KeptElsewhereError(BackendError):
    """Somebody else uses the machine; ``process`` is who."""

    def __init__(self, brief: str, process: int) -> None:
        super().__init__(brief)
        self.process = process


class Keeper:
    """A connection to a supervisor, with the face of a child process.

    :raises BackendError: nobody keeps a machine there.
    """

    def __init__(self, path: Path, deadline: Deadline) -> None:
        self._deadline = deadline
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(max(deadline.remaining(), 0.1))
        try:
            self._connection.connect(str(path))
        except OSError as error:
            self._connection.close()
            raise BackendError(f"nobody keeps a machine at {path}: {error.strerror}") from error
        #: What was told of the processes before the machine was ours.
        self.told: list[Mapping[str, Any]] = []
        #: The descriptors that came with the machine: the lock of its folder, and connections that were held for us.
        self.descriptors: list[int] = []
        #: A login on the guest that the machine's last user has left.
        self.login: HeldLogin | None = None
        self._ended = False
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        credentials = self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        #: The supervisor's process.
        self.pid = int(struct.unpack("3i", credentials)[0])

    def use(self) -> None:
        """Own the machine.

        :raises KeptElsewhereError: another process uses it.
        :raises BackendError: it is just being ended.
        """
        self._say("use")
        buffer, yours = b"", None
        while yours is None:
            *lines, buffer = (buffer + self._receive()).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if message["event"] == "busy":
                    raise KeptElsewhereError(f"process {message['pid']} uses the machine", message["pid"])
                if message["event"] == "yours":
                    yours = message
                else:
                    self.told.append(message)
        if "login" in yours:
            self.login = HeldLogin(self.descriptors.pop(), yours["login"])
        self._connection.settimeout(None)
        self.stdin = self._connection.makefile("wb")
        self.stdout = self._connection.makefile("rb")

    def leave_login(self, login: HeldLogin) -> None:
        """Have a login kept for who uses the machine next.

        :raises BackendError: it is just being ended.
        """
        self._say(f"login {login.state}", login.descriptor)

    def visit(self) -> tuple[int | None, float]:
        """Keep the machine from being idle while this connection lasts: who uses it, and for how long nobody has.

        :raises BackendError: it is just being ended.
        """
        self._say("visit")
        message = json.loads(self._receive().partition(b"\n")[0])
        return message["user"], message["idle"]

    def end(self) -> None:
        """End the machine, and wait until nothing of it is left.

        :raises KeptElsewhereError: another process uses it.
        :raises BackendError: it did not end in time.
        """
        self._say("end")
        try:
            chunk = self._connection.recv(_PIECE)
        except TimeoutError as error:
            raise BackendError(f"process {self.pid} does not end the machine") from error
        except ConnectionError:
            return
        if chunk:
            process = json.loads(chunk.partition(b"\n")[0])["pid"]
            raise KeptElsewhereError(f"process {process} uses the machine", process)

    def close(self) -> None:
        """Go away; the machine stays."""
        # The thread that listens here learns of it.
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            self._ended = True
        self._connection.close()

    def poll(self) -> int | None:
        """0 after the supervisor's end, ``None`` before it."""
        if not self._ended and self._connection.fileno() >= 0:
            try:
                self._ended = self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
            except BlockingIOError:
                return None
            except OSError:
                self._ended = True
        return 0 if self._ended else None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the supervisor's end. Raises :class:`command.TimeoutExpired` as a process does."""
        deadline = Deadline.after(3600.0 if timeout is None else timeout)
        while self.poll() is None:
            if deadline.expired():
                raise command.TimeoutExpired("supervisor", deadline.seconds)
            deadline.pause(0.02)
        return 0

    def kill(self) -> None:
        """Kill the supervisor, and with it its processes."""
        os.kill(self.pid, signal.SIGKILL)

    def _say(self, line: str, *descriptors: int) -> None:
        try:
            socket.send_fds(self._connection, [f"{line}\n".encode()], descriptors)
        except OSError as error:
            raise BackendError(f"the machine is just being ended: {error.strerror}") from error

    def _receive(self) -> bytes:
        try:
            chunk, descriptors, _, _ = socket.recv_fds(self._connection, _PIECE, _MOST_DESCRIPTORS)
        except OSError as error:
            raise BackendError(f"who keeps the machine does not answer: {error}") from error
        if not chunk:
            raise BackendError("the machine is just being ended")
        for descriptor in descriptors:
            fcntl.fcntl(descriptor, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        self.descriptors += descriptors
        return chunk
