"""A command's three streams, served together so that none can block the others."""

from __future__ import annotations

import threading

import paramiko

from pytest_bootc.deadline import Deadline

#: More output than this, in bytes, ends a command.
MOST_OUTPUT = 256 << 20

_CHUNK = 1 << 20
_PACKET = 32 << 10
_STDIN_POLL = 0.02


class Streams:
    """What goes into a channel's command, and what has come out of it."""

    def __init__(self, channel: paramiko.Channel, stdin: bytes) -> None:
        self._channel = channel
        self._stdin: bytes | None = stdin
        self._sent = 0
        self._out: list[bytes] = []
        self._err: list[bytes] = []
        self._size = 0
        # Rung by both buffers when something arrives or the channel ends; silenced by one that runs empty, so after
        # every read there is another look before a wait.
        self._bell = threading.Event()
        channel.in_buffer.set_event(self._bell)
        channel.in_stderr_buffer.set_event(self._bell)

    @property
    def stdout(self) -> bytes:
        """Standard output so far."""
        return b"".join(self._out)

    @property
    def stderr(self) -> bytes:
        """Standard error so far."""
        return b"".join(self._err)

    @property
    def overflowed(self) -> bool:
        """Whether more came than anybody wants in memory."""
        return self._size > MOST_OUTPUT

    def drain(self, deadline: Deadline) -> bool:
        """Serve the streams until the channel is closed; whether that was before the deadline and an overflow."""
        while True:
            self._bell.clear()
            ended = self._channel.closed  # asked before reading: what came before the end is in the buffers now
            moved = self._read()
            if ended and not moved:
                return True
            if deadline.expired() or self.overflowed:
                return False
            waiting = self._feed()
            if not moved:
                self._bell.wait(min(deadline.remaining(), _STDIN_POLL) if waiting else deadline.remaining())

    def _read(self) -> bool:
        moved = 0
        if self._channel.recv_ready():
            self._out.append(self._channel.recv(_CHUNK))
            moved += len(self._out[-1])
        if self._channel.recv_stderr_ready():
            self._err.append(self._channel.recv_stderr(_CHUNK))
            moved += len(self._err[-1])
        self._size += moved
        return moved > 0

    def _feed(self) -> bool:
        """Send as much of stdin as the peer takes without waiting; whether some is left."""
        if self._stdin is None:
            return False
        while self._sent < len(self._stdin) and not self._channel.closed:
            if not self._channel.send_ready():
                return True
            self._sent += self._channel.send(self._stdin[self._sent : self._sent + _PACKET])
        self._channel.shutdown_write()
        self._stdin = None
        return False
