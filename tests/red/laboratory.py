"""What a laboratory can do to a run: small disks, networks without a port, clocks that jump, a registry that dies."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import Place

_INTEGRATION = Path(__file__).parents[1] / "integration" / "conftest.py"
_SMALL_DISK = """
set -e
mount -t tmpfs -o "size=$1" tmpfs "$2"
if [ -d "$3" ]; then cp -a "$3/." "$2/"; fi
if [ "$2" != "$4" ]; then mount --move "$2" "$4"; fi
echo ready
exec cat
"""
# One port for whoever asks for any, and somebody has it.
_NO_PORT = """
import socket, sys
from pathlib import Path
Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40000")
taken = socket.socket()
taken.bind(("127.0.0.1", 40000))
taken.listen()
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def _kept(command: Sequence[str], namespace: str) -> Iterator[Place]:
    """Namespaces as long as a process lives, which says that it is ready and ends with its standard input."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as keeper:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == b"ready\n", f"there is no such place: {command}"
        try:
            yield Place(("nsenter", f"--target={keeper.pid}", namespace, "--"), Path(f"/proc/{keeper.pid}/root"))
        finally:
            keeper.kill()


@contextmanager
def small_disk(folder: Path, scratch: Path, *, kib: int, content: Path | None = None) -> Iterator[Place]:
    """A disk of so many KiB as ``folder``, with a copy of the content (which may be what is in the folder)."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch.mkdir()
    script = ["sh", "-c", _SMALL_DISK, "sh", f"{kib}k", str(scratch), str(content or "/nowhere"), str(folder)]
    with _kept(["unshare", "--mount", "--propagation=private", *script], "--mount") as place:
        yield place
    scratch.rmdir()


@contextmanager
def no_free_port() -> Iterator[Place]:
    """A network in which every port that the kernel could choose is taken."""
    up = f'ip link set lo up && exec "{sys.executable}" -c "$1"'
    with _kept(["unshare", "--net", "sh", "-c", up, "sh", _NO_PORT], "--net") as place:
        yield place


class Clock:
    """The wall clock of processes that begin under it; monotonic clocks are the host's."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._library = folder / "clock.so"
        source = Path(__file__).with_name("clock.c")
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", self._library, source], check=True)
        self.jump(0)

    @property
    def environment(self) -> Mapping[str, str]:
        """What puts a process under it."""
        return {"LD_PRELOAD": str(self._library), "RED_CLOCK": str(self._file)}

    def jump(self, seconds: int) -> None:
        """Be ahead of the host's clock by so much from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds}\n")
        new.replace(self._file)


def registry_class() -> Any:
    """The registry of the integration tests."""
    spec = importlib.util.spec_from_file_location("integration_peers", _INTEGRATION)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.RegistryServer


def used_kib(folder: Path) -> int:
    """What the files of a folder take on a tmpfs, which has no holes filled and pages of 4 KiB."""
    files = {(path.stat().st_ino): path.stat() for path in folder.rglob("*") if path.is_file()}
    return sum(min((info.st_size + 4095) // 4096 * 4, info.st_blocks // 2 + 4) for info in files.values())
