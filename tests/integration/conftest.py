"""Real peers that tests of several modules talk to."""

from __future__ import annotations

import getpass
import json
import os
import signal
import socket
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from pytest_bootc import command
from pytest_bootc.cache import Cache, default_home
from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.disk.live import Workshop, build_live_disk
from pytest_bootc.image import ImageReference
from pytest_bootc.machine.qemu import QemuMachine
from pytest_bootc.machine.qemu_backend import QemuBackend
from pytest_bootc.model import LiveDisk, MachineSpec, Network, RunConfig, SSHEndpoint
from pytest_bootc.progress import Silent
from pytest_bootc.source import source_for

_TOOLS = default_home() / "tools"  # of the one who runs the tests, whoever is at home in a test


@dataclass(frozen=True)
class Key:
    """An Ed25519 key in OpenSSH's formats."""

    private: str
    public: str

    @classmethod
    def make(cls) -> Key:
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        return cls(private.decode(), public.decode())


class SSHServer:
    """A real sshd on a port of 127.0.0.1, run by the user who runs the tests, which can be stopped and started."""

    def __init__(self, folder: Path, options: str = "", path: str = os.defpath) -> None:
        self.folder = folder
        self.key = Key.make()
        self.host_key = Key.make()
        self.home = folder / "home"
        self.home.mkdir()
        self.port = 0
        self._options = options
        self._path = path
        self._process: command.Process | None = None
        (folder / "authorized_keys").write_text(f"{self.key.public}\n")
        host_key = folder / "host_key"
        host_key.write_text(self.host_key.private)
        host_key.chmod(0o600)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)

    @property
    def endpoint(self) -> SSHEndpoint:
        return SSHEndpoint("127.0.0.1", self.port, getpass.getuser(), self.key.private, self.host_key.public)

    def start(self) -> None:
        """Listen: on a port that is free, the first time, and then on that one again."""
        self.port = self.port or _free_port()
        config = self.folder / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder}/host_key\nPidFile none\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
            f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
            f"SetEnv HOME={self.home} PATH={self._path}\nPrintMotd no\nMaxStartups 100\n{self._options}\n"
        )
        log = self.folder / "sshd.log"
        sshd = command.find_program("sshd", resolution="install openssh-server")
        with log.open("wb") as sink:
            self._process = command.spawn([sshd, "-D", "-e", "-f", config], stderr=sink)

        def listening() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, log.read_text()
            return "Server listening" in log.read_text()

        wait_until(listening, Deadline.after(10), what="sshd to listen", last=log.read_text)

    def signal(self, number: signal.Signals) -> None:
        """Signal the connections that are open: sshd's processes, then what they have started."""
        assert self._process is not None
        for process in _descendants(self._process.pid):
            with suppress(ProcessLookupError):  # it has ended by itself
                os.kill(process, number)

    def _commands(self) -> list[int]:
        """What was started through this server, although its connection may have ended long ago."""
        ours = f"HOME={self.home}\0".encode()
        return [int(process.name) for process in Path("/proc").glob("[0-9]*") if ours in _environment(process)]

    def stop(self) -> None:
        """End everything at once, as a machine that goes down does."""
        if self._process is None:
            return
        commands = self._commands()
        self.signal(signal.SIGKILL)
        for process in (self._process.pid, *commands):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._process.wait()
        self._process = None


def _environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:  # it has ended, or is another user's
        return b""


def _descendants(process: int) -> list[int]:
    """The process ids of a process's children and of theirs, parents first."""
    try:
        own = [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):  # it has ended by itself
        return []
    return [descendant for child in own for descendant in (child, *_descendants(child))]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def make_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., SSHServer]]:
    """Make servers of one's own, with other lines for sshd_config(5) or another PATH; they end with the test."""
    with ExitStack() as stack:

        def make(options: str = "Subsystem sftp internal-sftp", path: str = os.defpath) -> SSHServer:
            server = SSHServer(tmp_path_factory.mktemp("sshd"), options, path)
            stack.callback(server.stop)
            server.start()
            return server

        yield make


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SSHServer]:
    """A server that the tests of a module share: leave it as it is."""
    server = SSHServer(tmp_path_factory.mktemp("sshd"), "Subsystem sftp internal-sftp")
    server.start()
    yield server
    server.stop()


class ImageLayouts(dict[str, Path]):
    """The test images, each built when it is first asked for."""

    def __missing__(self, name: str) -> Path:
        builder = Path(__file__).parents[1] / "images" / "build.py"
        done = command.run([sys.executable, builder, name], deadline=Deadline.after(600))
        self[name] = Path(done.stdout.decode().strip())
        return self[name]


@pytest.fixture(scope="session")
def image_layout() -> ImageLayouts:
    """The folder of a test image's OCI layout, by its name."""
    return ImageLayouts()


class RebootableSSHServer(SSHServer):
    """A server whose boot id is what the test says, and which is told to reboot: a forced command answers for both."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, f"Subsystem sftp internal-sftp\nForceCommand sh {folder}/answer")
        (folder / "answer").write_text(
            "case $SSH_ORIGINAL_COMMAND in\n"
            f"*boot_id*) exec cat {folder}/boot_id;;\n"
            f"*'systemctl reboot'*) echo \"$SSH_ORIGINAL_COMMAND\" > {folder}/told; exec sh {folder}/on_reboot;;\n"
            'esac; eval "$SSH_ORIGINAL_COMMAND"\n'
        )
        (folder / "on_reboot").write_text("exit 0")
        self._boots = 0
        self._boot()

    def _boot(self) -> None:
        self._boots += 1
        (self.folder / "boot_id").unlink(missing_ok=True)
        (self.folder / "boot_id").write_text(f"00000000-0000-4000-8000-{self._boots:012}\n")

    def reboot(self) -> None:
        """Go down with all connections and come up with another boot id."""
        self.stop()
        self._boot()
        self.start()


@pytest.fixture
def rebootable_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RebootableSSHServer]:
    server = RebootableSSHServer(tmp_path_factory.mktemp("sshd"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def make_key() -> Callable[[], Key]:
    """Make keys that no server knows."""
    return Key.make


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A TCP port of 127.0.0.1 that is taken, so that nobody else gets it, and refuses connections."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


class RegistryServer:
    """Debian's docker-registry on a port of 127.0.0.1, with its files in a folder.

    ``auth`` and ``tls`` are the sections of its configuration with these names: who is let in, and by which TLS.
    """

    def __init__(self, folder: Path, auth: dict[str, Any] | None = None, tls: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.host = ""
        self._auth = auth
        self._tls = tls
        self._process: command.Process | None = None

    def start(self) -> None:
        self.host = f"127.0.0.1:{_free_port()}"
        settings: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "storage")}},
            "http": {"addr": self.host} | ({"tls": self._tls} if self._tls else {}),
        }
        if self._auth:
            settings["auth"] = self._auth
        config = self.folder / f"config-{self.host.rpartition(':')[2]}.yml"
        config.write_text(json.dumps(settings))  # which is YAML too
        registry = command.find_program("docker-registry", resolution="install docker-registry")
        self._run([registry, "serve", config])

    def _run(self, argv: Sequence[str | Path]) -> None:
        log = self.folder / f"registry-{self.host.rpartition(':')[2]}.log"
        with log.open("wb") as sink:
            self._process = command.spawn(argv, stdout=sink, stderr=sink)

        def listening() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, log.read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", int(self.host.rpartition(":")[2]))) == 0

        wait_until(listening, Deadline.after(20), what=f"{argv[0]} to listen", last=log.read_text)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def push(self, layout: Path, descriptor: dict[str, Any], repository: str, tag: str | None = None) -> str:
        """Push a manifest or an index of a layout with all that is below it; return its name in the registry."""
        raw = _blob(layout, descriptor["digest"])
        content = json.loads(raw)
        for child in content.get("manifests", ()):
            self.push(layout, child, repository)
        for child in (*content.get("layers", ()), *([content["config"]] if "config" in content else ())):
            self._push_blob(_blob(layout, child["digest"]), repository, child["digest"])
        target = tag or descriptor["digest"]
        url = f"http://{self.host}/v2/{repository}/manifests/{target}"
        _send("PUT", url, raw, {"Content-Type": descriptor["mediaType"]})
        return f"{self.host}/{repository}:{tag}" if tag else f"{self.host}/{repository}@{target}"

    def _push_blob(self, content: bytes, repository: str, digest: str) -> None:
        begin = f"http://{self.host}/v2/{repository}/blobs/uploads/"
        upload = urljoin(begin, _send("POST", begin))
        mark = "&" if "?" in upload else "?"
        _send("PUT", f"{upload}{mark}digest={digest}", content, {"Content-Type": "application/octet-stream"})

    def file(self, digest: str) -> Path:
        """Where the registry keeps a blob or manifest."""
        name = digest.partition(":")[2]
        return self.folder / "storage/docker/registry/v2/blobs/sha256" / name[:2] / name / "data"


class OlaregServer(RegistryServer):
    """olareg, built by scripts/setup: another registry, by other people, with its files in OCI layouts."""

    def start(self) -> None:
        self.host = f"127.0.0.1:{_free_port()}"
        found = sorted(_TOOLS.glob("olareg-*/olareg"))
        if not found:
            pytest.skip("olareg is not there; scripts/setup builds it")
        port = self.host.rpartition(":")[2]
        self._run([found[-1], "serve", "--addr", "127.0.0.1", "--port", port, "--dir", self.folder])


def _blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


def _send(method: str, url: str, content: bytes = b"", headers: dict[str, str] | None = None) -> str:
    """Send a request, and return where the answer points to."""
    request = urllib.request.Request(url, content, headers or {}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return answer.headers.get("Location") or ""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry that the tests of a module share: push to repositories of your own."""
    server = RegistryServer(tmp_path_factory.mktemp("registry"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def make_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RegistryServer]]:
    """Start registries of one's own; with the ``folder`` of another one it has the same images."""
    with ExitStack() as stack:

        def make(folder: Path | None = None, **sections: dict[str, Any]) -> RegistryServer:
            server = RegistryServer(folder or tmp_path_factory.mktemp("registry"), **sections)
            stack.callback(server.stop)
            server.start()
            return server

        yield make


@pytest.fixture(scope="module")
def olareg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OlaregServer]:
    """Another registry that the tests of a module share."""
    server = OlaregServer(tmp_path_factory.mktemp("olareg"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def live_disk(image_layout: ImageLayouts) -> Callable[[str], LiveDisk]:
    """The golden disk of a test image, by its name; made, or found in the cache."""

    def disk(name: str) -> LiveDisk:
        reference = ImageReference.parse(f"oci:{image_layout[name]}:latest")
        source = source_for(reference)
        deadline = Deadline.after(300)
        workshop = Workshop(Cache(default_home()), deadline, Silent(), 40)
        return build_live_disk(source.resolve(reference, deadline), source, workshop)

    return disk


@contextmanager
def booted(disk: LiveDisk, *, memory_mib: int, seconds: float) -> Iterator[QemuMachine]:
    spec = MachineSpec(memory_mib=memory_mib, network=Network.RESTRICTED)
    with QemuBackend(RunConfig(), default_home()).provision(spec, disk) as machine:
        machine.start(Deadline.after(seconds))
        yield machine


@pytest.fixture(scope="session")
def server_vm(live_disk: Callable[[str], LiveDisk]) -> Iterator[QemuMachine]:
    """A machine of the server image that has booted. Tests share it: leave it as it was."""
    with booted(live_disk("server"), memory_mib=1536, seconds=60) as machine:
        yield machine


@pytest.fixture(scope="session")
def workstation_vm(live_disk: Callable[[str], LiveDisk]) -> Iterator[QemuMachine]:
    """A machine of the workstation image that has booted. Tests share it: leave it as it was."""
    with booted(live_disk("workstation"), memory_mib=2048, seconds=120) as machine:
        yield machine
