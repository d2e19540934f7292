"""An sshd on the loopback, as the user who measures, with keys of its own."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.machine.inject import Identity
from pytest_bootc.model import SSHEndpoint


@dataclass(frozen=True)
class Server:
    """Where it listens, and the file with the key that it lets in."""

    endpoint: SSHEndpoint
    key: Path


@contextmanager
def serving() -> Iterator[Server]:
    """The server, until the end of the context."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = Identity.generate()
        port = _free_port()
        for file, text in (("host", keys.host_private), ("key", keys.user_private), ("keys", keys.user_public)):
            (folder / file).touch(mode=0o600)
            (folder / file).write_text(text)
        options = [f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host", "UsePAM no", "StrictModes no"]
        options += [f"AuthorizedKeysFile {folder}/keys", "PidFile none", f"SetEnv HOME={folder}"]
        (folder / "config").write_text("\n".join(options) + "\n")
        Path("/run/sshd").mkdir(exist_ok=True)
        with subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", folder / "config"], stderr=subprocess.DEVNULL) as sshd:
            try:
                wait_until(lambda: _listens(port), Deadline.after(10), what="sshd")
                yield Server(
                    SSHEndpoint("127.0.0.1", port, "root", keys.user_private, keys.host_public), folder / "key"
                )
            finally:
                sshd.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
