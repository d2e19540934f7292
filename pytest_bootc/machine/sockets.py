"""Connections to the sockets that QEMU listens on."""

from __future__ import annotations

import socket
from pathlib import Path

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import BackendError

# A socket has its name a moment before it is listened on (bind(2), listen(2)); on a busy host that may take long.
_LISTEN_SECONDS = 3.0
_PAUSE = 0.01


def connect(path: Path, deadline: Deadline) -> socket.socket:
    """A connection, with what is left of the deadline as its timeout.

    :raises BackendError: nobody listens.
    """
    patience = deadline.sooner(_LISTEN_SECONDS)
    while True:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(max(deadline.remaining(), 0.1))
        try:
            connection.connect(str(path))
        except OSError as error:
            connection.close()
            if not isinstance(error, ConnectionRefusedError) or patience.expired():
                raise BackendError(f"QEMU does not answer on {path}: {error}") from error
        else:
            return connection
        patience.pause(_PAUSE)
