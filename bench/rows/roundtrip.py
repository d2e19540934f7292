"""One command over SSH to the same sshd on the loopback: ours, paramiko alone with TCP_NODELAY, and the peers."""

from __future__ import annotations

import base64
import json
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import paramiko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.model import SSHEndpoint
from pytest_bootc.ssh import SSHSession
from rows.figure import Figure

_ROUNDS = 200


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        private, public = _key()
        host_private, host_public = _key()
        port = _free_port()
        (folder / "host").write_text(host_private)
        (folder / "host").chmod(0o600)
        (folder / "keys").write_text(public)
        options = [f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host", "UsePAM no", "StrictModes no"]
        options += [f"AuthorizedKeysFile {folder}/keys", "PidFile none", f"SetEnv HOME={folder}"]
        (folder / "config").write_text("\n".join(options) + "\n")
        Path("/run/sshd").mkdir(exist_ok=True)
        with subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", folder / "config"], stderr=subprocess.DEVNULL) as sshd:
            try:
                wait_until(lambda: _listens(port), Deadline.after(10), what="sshd")
                ours = _compare(port, private, host_public)
                (folder / "key").write_text(private)
                (folder / "key").chmod(0o600)
                return [ours.figure, *_peers(port, folder / "key", ours.seconds)]
            finally:
                sshd.terminate()


class _Ours(NamedTuple):
    figure: Figure
    seconds: float


def _peers(port: int, key: Path, ours: float) -> list[Figure]:
    """Against each of the peers, which run in a Python of their own (bench/run makes it)."""
    here = Path(__file__).parents[1]
    python = here.parent / ".venv-bench" / "bin" / "python"
    told = subprocess.run(
        [python, here / "peers.py", str(port), str(key), str(_ROUNDS)], check=True, capture_output=True, text=True
    ).stdout
    return [
        Figure(f"the same, against {name}", ours / theirs, "x", 1, f"{ours * 1000:.2f} and {theirs * 1000:.2f} ms")
        for name, theirs in json.loads(told).items()
    ]


def _compare(port: int, private: str, host_public: str) -> _Ours:
    endpoint = SSHEndpoint("127.0.0.1", port, "root", private, host_public)
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw = paramiko.SSHClient()
    kind, key = host_public.split()
    raw.get_host_keys().add(f"[127.0.0.1]:{port}", kind, paramiko.PKey.from_type_string(kind, _decoded(key)))
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(private)
        file.flush()
        raw.connect("127.0.0.1", port, "root", sock=connection, key_filename=file.name, allow_agent=False)
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


def _key() -> tuple[str, str]:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    return private, key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
