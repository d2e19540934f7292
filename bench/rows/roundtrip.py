"""One command over SSH to the same sshd on the loopback: ours, paramiko alone with TCP_NODELAY, and the peers."""

from __future__ import annotations

import base64
import json
import socket
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import paramiko

from pytest_bootc.deadline import Deadline
from pytest_bootc.ssh import SSHSession
from rows.figure import Figure
from rows.server import Server, serving

_ROUNDS = 200


def measure() -> list[Figure]:
    with serving() as server:
        ours = _compare(server)
        return [ours.figure, *_peers(server, ours.seconds)]


class _Ours(NamedTuple):
    figure: Figure
    seconds: float


def _peers(server: Server, ours: float) -> list[Figure]:
    """Against each of the peers, which run in a Python of their own (bench/run makes it)."""
    here = Path(__file__).parents[1]
    python = here.parent / ".venv-bench" / "bin" / "python"
    words: list[str | Path] = [python, here / "peers.py", str(server.endpoint.port), str(server.key), str(_ROUNDS)]
    told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return [
        Figure(f"the same, against {name}", ours / theirs, "x", 1, f"{ours * 1000:.2f} and {theirs * 1000:.2f} ms")
        for name, theirs in json.loads(told).items()
    ]


def _compare(server: Server) -> _Ours:
    endpoint = server.endpoint
    connection = socket.create_connection((endpoint.host, endpoint.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw = paramiko.SSHClient()
    kind, key = str(endpoint.host_key).split()
    host = f"[{endpoint.host}]:{endpoint.port}"
    raw.get_host_keys().add(host, kind, paramiko.PKey.from_type_string(kind, base64.b64decode(key)))
    raw.connect("127.0.0.1", endpoint.port, "root", sock=connection, key_filename=str(server.key), allow_agent=False)
    with SSHSession.connect(endpoint, Deadline.after(30)) as ours:
        pairs = [(_time(lambda: ours.succeed("true")), _time(lambda: _raw(raw))) for _ in range(_ROUNDS)]
    raw.close()
    mine, theirs = (statistics.median(values) * 1000 for values in zip(*pairs, strict=True))
    told = f"{mine:.2f} and {theirs:.2f} ms"
    return _Ours(Figure("command round trip, against raw paramiko", mine / theirs, "x", 1.2, told), mine / 1000)


def _raw(client: paramiko.SSHClient) -> None:
    _, stdout, stderr = client.exec_command("true")
    stdout.read()
    stderr.read()
    stdout.channel.recv_exit_status()


def _time(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began
