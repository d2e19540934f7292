"""A small server that speaks QMP as QEMU does, and as it does when things go wrong."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import BackendError, WaitTimeoutError
from pytest_bootc.machine.qmp import QMPClient

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'
Answer = Callable[[dict[str, object]], bytes | None]


class Server:
    """Answers each request with what ``answer`` makes of it; ``None`` closes the connection."""

    def __init__(self, path: Path) -> None:
        self.requests: list[dict[str, object]] = []
        self.answer: Answer = lambda request: reply(request, {})
        self.capabilities: Answer = lambda request: reply(request, {})
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def send(self, content: bytes) -> None:
        assert self._connection is not None
        self._connection.sendall(content)

    def close(self) -> None:
        self._listener.close()
        if self._connection is not None:
            self._connection.close()
        self._thread.join(5)

    def _serve(self) -> None:
        self._connection, _ = self._listener.accept()
        self._connection.sendall(GREETING)
        with self._connection.makefile("rb") as lines:
            for line in lines:
                request = json.loads(line)
                self.requests.append(request)
                handshake = request["execute"] == "qmp_capabilities"
                content = (self.capabilities if handshake else self.answer)(request)
                if content is None:
                    self._connection.shutdown(socket.SHUT_RDWR)
                    return
                self._connection.sendall(content)


def reply(request: dict[str, object], value: object) -> bytes:
    return json.dumps({"return": value, "id": request["id"]}).encode() + b"\r\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "qmp")
    yield made
    made.close()


@pytest.fixture
def client(server: Server, tmp_path: Path) -> Iterator[QMPClient]:
    made = QMPClient.connect(tmp_path / "qmp", Deadline.after(5))
    yield made
    made.close()


def test_a_command_returns_what_qemu_returns(server: Server, client: QMPClient) -> None:
    server.answer = lambda request: reply(request, {"status": "running"})
    assert client.execute("query-status", deadline=Deadline.after(5)) == {"status": "running"}
    assert [request["execute"] for request in server.requests] == ["qmp_capabilities", "query-status"]


def test_arguments_are_spelt_as_qemu_spells_them(server: Server, client: QMPClient) -> None:
    client.execute("human-monitor-command", deadline=Deadline.after(5), command_line="info usernet")
    assert server.requests[-1]["arguments"] == {"command-line": "info usernet"}


def test_a_refusal_is_told_in_qemus_words(server: Server, client: QMPClient) -> None:
    server.answer = lambda request: (
        json.dumps({"error": {"class": "GenericError", "desc": "Device 'x' not found"}, "id": request["id"]}).encode()
        + b"\n"
    )
    with pytest.raises(BackendError, match="QEMU refused device_del: Device 'x' not found"):
        client.execute("device_del", deadline=Deadline.after(5), id="x")


def test_no_answer_ends_at_the_deadline(server: Server, client: QMPClient) -> None:
    server.answer = lambda request: b""
    with pytest.raises(BackendError, match=r"did not answer to stop: no answer within 0\.2 s"):
        client.execute("stop", deadline=Deadline.after(0.2))


def test_a_late_answer_is_not_taken_for_another(server: Server, client: QMPClient) -> None:
    late: list[dict[str, object]] = []

    def hold(request: dict[str, object]) -> bytes:
        late.append(request)
        return b""

    server.answer = hold
    with pytest.raises(BackendError):
        client.execute("first", deadline=Deadline.after(0.1))
    server.answer = lambda request: reply(late[0], "old") + reply(request, "new")
    assert client.execute("second", deadline=Deadline.after(5)) == "new"


def test_events_are_kept_until_somebody_waits(server: Server, client: QMPClient) -> None:
    event = b'{"event": "RESET", "data": {}}\r\n'
    server.answer = lambda request: event + reply(request, 1)
    client.execute("x", deadline=Deadline.after(5))
    assert client.wait_for_event(("SHUTDOWN", "RESET"), Deadline.after(5))["event"] == "RESET"
    assert client.take_event(("RESET",)) is None


def test_lines_may_come_in_pieces(server: Server, client: QMPClient) -> None:
    def pieces(request: dict[str, object]) -> bytes:
        content = reply(request, "whole")
        for at in range(3):
            server.send(content[at : at + 1])
            time.sleep(0.02)
        return content[3:]

    server.answer = pieces
    assert client.execute("x", deadline=Deadline.after(5)) == "whole"


def test_an_event_that_does_not_come(client: QMPClient) -> None:
    with pytest.raises(WaitTimeoutError, match="QEMU's event RESET"):
        client.wait_for_event(("RESET",), Deadline.after(0.1))


def test_the_end_of_qemu_ends_a_wait_at_once(server: Server, client: QMPClient) -> None:
    server.answer = lambda request: None
    began = time.monotonic()
    with pytest.raises(BackendError, match="did not answer to quit: it is gone"):
        client.execute("quit", deadline=Deadline.after(30))
    assert client.closed
    with pytest.raises(BackendError, match="QEMU ended while waiting for RESET"):
        client.wait_for_event(("RESET",), Deadline.after(30))
    assert time.monotonic() - began < 10


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="QEMU does not answer on"):
        QMPClient.connect(tmp_path / "nothing", Deadline.after(1))


@pytest.mark.parametrize("said", [b"login: \n", b"[1]\n", b'"event"\n', b"\xff\n"])
def test_what_is_no_qmp_ends_the_connection_at_once(server: Server, client: QMPClient, said: bytes) -> None:
    server.answer = lambda request: said
    began = time.monotonic()
    with pytest.raises(BackendError) as caught:
        client.execute("query-status", deadline=Deadline.after(30))
    assert time.monotonic() - began < 10
    assert caught.value.brief == f"QEMU did not answer to query-status: what it says is no QMP: {said[:-1]!r}"
    assert client.closed


def test_answers_of_many_commands_in_one_piece_and_in_any_order(server: Server, client: QMPClient) -> None:
    requests: list[dict[str, object]] = []

    def hold(request: dict[str, object]) -> bytes:
        requests.append(request)
        if len(requests) < 4:
            return b""
        return b"\n".join(reply(request, request["execute"]) for request in reversed(requests))

    server.answer = hold
    seen: dict[str, object] = {}
    threads = [
        threading.Thread(
            target=lambda name=name: seen.update({name: client.execute(name, deadline=Deadline.after(20))})
        )
        for name in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {name: name for name in "abcd"}


def test_a_server_that_refuses_the_handshake(server: Server, tmp_path: Path) -> None:
    before = threading.active_count()
    server.capabilities = lambda request: (
        json.dumps({"error": {"desc": "not yet"}, "id": request["id"]}).encode() + b"\n"
    )
    with pytest.raises(BackendError, match="QEMU refused qmp_capabilities: not yet"):
        QMPClient.connect(tmp_path / "qmp", Deadline.after(5))
    wait_until(lambda: threading.active_count() < before, Deadline.after(5), what="both threads to end")


def test_closing_twice_does_nothing(client: QMPClient) -> None:
    client.close()
    client.close()
    with pytest.raises(BackendError, match="QEMU is gone: stop could not be sent"):
        client.execute("stop", deadline=Deadline.after(5))
