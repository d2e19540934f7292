"""Connections to the sockets that QEMU listens on."""

from __future__ import annotations

import socket
from pathlib import Path

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import BackendError


def connect(path: Path, deadline: Deadline) -> socket.socket:
    """A connection, with what is left of the deadline as its timeout.

    :raises BackendError: nobody listens.
    """
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(max(deadline.remaining(), 0.1))
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise BackendError(f"QEMU does not answer on {path}: {error}") from error
    return connection
