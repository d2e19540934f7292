"""The state of a machine without its RAM, out of QEMU into a file and back (QEMU, docs/devel/migration).

The RAM is a file that QEMU maps (``x-ignore-shared``), so that what is left is half a megabyte. It passes through a
local socket: the one way that every version of QEMU knows and that needs no program in between.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import BackendError, WaitTimeoutError
from pytest_bootc.machine.qmp import QMPClient
from pytest_bootc.machine.sockets import connect

_PIECE = 1 << 20


def save_state(qmp: QMPClient, meeting: Path, target: Path, deadline: Deadline) -> None:
    """Write the state of a machine that stands still to ``target``; ``meeting`` is where a socket may be made.

    The machine can go on afterwards.

    :raises BackendError: QEMU cannot save this machine.
    :raises OSError: the file cannot be written.
    """
    _leave_out_ram(qmp, deadline)
    meeting.unlink(missing_ok=True)  # a QEMU that died while it waited there
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(meeting))
        try:
            listener.listen(1)
            listener.settimeout(max(deadline.remaining(), 0.001))
            qmp.execute("migrate", deadline=deadline, uri=f"unix:{meeting}")
            _receive(listener, target, deadline)
        finally:
            meeting.unlink()
    _await_completion(qmp, deadline)


def load_state(qmp: QMPClient, meeting: Path, source: Path, deadline: Deadline) -> None:
    """Give a QEMU that was started to wait for it the state in ``source``; the machine stands still then.

    :raises BackendError: QEMU does not take it.
    :raises OSError: the file cannot be read.
    """
    _leave_out_ram(qmp, deadline)
    qmp.execute("migrate-incoming", deadline=deadline, uri=f"unix:{meeting}")
    with closing(connect(meeting, deadline)) as connection, source.open("rb") as file:
        connection.settimeout(max(deadline.remaining(), 0.001))
        try:
            connection.sendfile(file)
        except OSError as error:
            raise BackendError(f"QEMU does not take the saved state: {error}") from error
    _await_completion(qmp, deadline)


def _leave_out_ram(qmp: QMPClient, deadline: Deadline) -> None:
    wanted = [{"capability": "x-ignore-shared", "state": True}]
    qmp.execute("migrate-set-capabilities", deadline=deadline, capabilities=wanted)


def _receive(listener: socket.socket, target: Path, deadline: Deadline) -> None:
    try:
        connection, _ = listener.accept()
        with closing(connection), target.open("xb") as file:
            connection.settimeout(max(deadline.remaining(), 0.001))
            while piece := connection.recv(_PIECE):
                file.write(piece)
    except TimeoutError as error:
        raise BackendError(f"QEMU did not save the machine within {deadline.seconds:g} s") from error


def _await_completion(qmp: QMPClient, deadline: Deadline) -> None:
    last = "nothing"

    def completed() -> bool:
        nonlocal last
        told = qmp.execute("query-migrate", deadline=deadline)
        status = told.get("status") if isinstance(told, Mapping) else None
        last = str(status)
        if status in ("failed", "cancelled"):
            why = told.get("error-desc", "no reason given") if isinstance(told, Mapping) else ""
            raise BackendError(f"QEMU could not move the machine's state: {why}")
        return status == "completed"

    try:
        wait_until(completed, deadline, what="QEMU to move the machine's state", last=lambda: last)
    except WaitTimeoutError as error:
        raise BackendError(
            f"QEMU did not move the machine's state within {deadline.seconds:g} s (it is {last})"
        ) from error
