"""The QEMU Machine Protocol (QEMU, docs/interop/qmp-spec.rst) over a local socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Mapping
from pathlib import Path

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import BackendError
from pytest_bootc.machine.sockets import connect

Message = Mapping[str, object]


class QMPClient:
    """One connection. Replies are matched to commands by id; events are kept until somebody waits for them."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._changed = threading.Condition()
        self._replies: dict[int, Message] = {}
        self._events: list[Message] = []
        self._closed = False
        self._why_closed = "it is gone"
        self._number = 0
        self._reader = threading.Thread(target=self._read, name="qmp", daemon=True)

    @classmethod
    def connect(cls, path: Path, deadline: Deadline) -> QMPClient:
        """Connect and leave the negotiation mode.

        :raises BackendError: nobody answers, or not as QEMU does.
        """
        connection = connect(path, deadline)
        connection.settimeout(None)
        client = cls(connection)
        client._reader.start()
        try:
            client.execute("qmp_capabilities", deadline=deadline)
        except BackendError:
            client.close()
            raise
        return client

    def execute(self, command: str, *, deadline: Deadline, **arguments: object) -> object:
        """Run a command and return what it returns; underscores in argument names become hyphens.

        :raises BackendError: QEMU refused it, went away, or did not answer in time.
        """
        with self._changed:
            self._number += 1
            number = self._number
        request: dict[str, object] = {"execute": command, "id": number}
        if arguments:
            request["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            self._connection.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise BackendError(f"QEMU is gone: {command} could not be sent") from error
        with self._changed:
            self._changed.wait_for(lambda: number in self._replies or self._closed, deadline.remaining())
            reply = self._replies.pop(number, None)
        if reply is None:
            why = self._why_closed if self._closed else f"no answer within {deadline.seconds:g} s"
            raise BackendError(f"QEMU did not answer to {command}: {why}")
        if "error" in reply:
            error_ = reply["error"]
            text = error_.get("desc") if isinstance(error_, Mapping) else error_
            raise BackendError(f"QEMU refused {command}: {text}", details=json.dumps(request))
        return reply.get("return")

    def wait_for_event(self, names: tuple[str, ...], deadline: Deadline) -> Message:
        """Take the first event of one of these names, also one that came before the call.

        :raises WaitTimeoutError: none came.
        :raises BackendError: QEMU is gone.
        """

        def look() -> Message | None:
            event = self.take_event(names)
            if event is None and self.closed:
                raise BackendError(f"QEMU ended while waiting for {' or '.join(names)}")
            return event

        return wait_until(look, deadline, what=f"QEMU's event {' or '.join(names)}", last=lambda: "")

    def take_event(self, names: tuple[str, ...]) -> Message | None:
        """Take the first event of one of these names, if there is one."""
        with self._changed:
            for event in self._events:
                if event.get("event") in names:
                    self._events.remove(event)
                    return event
        return None

    @property
    def closed(self) -> bool:
        """Whether QEMU has closed the connection."""
        with self._changed:
            return self._closed

    def close(self) -> None:
        """Close the connection; QEMU goes on."""
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            # Closed by QEMU already.
            self._closed = True
        self._connection.close()
        if self._reader.is_alive():
            self._reader.join(timeout=2)

    def _read(self) -> None:
        buffer = b""
        while True:
            try:
                chunk = self._connection.recv(1 << 16)
            except OSError:
                chunk = b""
            if not chunk:
                break
            *lines, buffer = (buffer + chunk).split(b"\n")
            if not all(self._sort_in(line) for line in lines if line.strip()):
                break
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _sort_in(self, line: bytes) -> bool:
        """Put a message where it is looked for; whether it is one."""
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        with self._changed:
            if not isinstance(message, dict):
                self._why_closed = f"what it says is no QMP: {line[:100]!r}"
                return False
            if "event" in message:
                self._events.append(message)
            elif isinstance(number := message.get("id"), int):
                self._replies[number] = message
            self._changed.notify_all()
        return True
