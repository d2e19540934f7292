"""What a guest is asked, answered by this host's own programs, and by busybox's, through OpenSSH's server.

Units and the journal need a machine that systemd has booted; they are tested where virtual machines are.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
import pwd
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_bootc.command import look_for_program
from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import ConfigError, GuestError, WaitTimeoutError
from pytest_bootc.guest import Guest
from pytest_bootc.ssh import SSHSession
from pytest_bootc.system import parse_capabilities

pytestmark = pytest.mark.integration


def guest_with(server) -> Iterator[Guest]:
    with SSHSession.connect(server.endpoint, Deadline.after(20)) as session:
        yield Guest(session)


@pytest.fixture
def host(sshd) -> Iterator[Guest]:
    """A guest with all that this host has."""
    yield from guest_with(sshd)


@pytest.fixture
def bare(make_sshd, busybox: Path) -> Iterator[Guest]:
    """A guest that has no programs but busybox's."""
    yield from guest_with(make_sshd(path=str(busybox)))


@pytest.fixture
def busybox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = shutil.which("busybox")
    if program is None:
        pytest.skip("busybox is not installed")
    folder = tmp_path_factory.mktemp("busybox")
    for name in subprocess.check_output([program, "--list"], text=True).split():
        if name not in ("rpm", "dpkg", "dpkg-deb"):
            (folder / name).symlink_to(program)
    return folder


@pytest.fixture(params=["host", "bare"])
def guest(request: pytest.FixtureRequest) -> Guest:
    return request.getfixturevalue(request.param)


def test_facts_are_those_of_the_machine(guest):
    facts = guest.facts()

    assert facts.kernel_release == platform.release() == guest.kernel_release()
    assert facts.architecture == platform.machine()
    assert facts.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip() == guest.boot_id()
    assert facts.hostname == socket.gethostname()
    assert facts.os_release == platform.freedesktop_os_release() == guest.os_release()
    assert facts.user == os.geteuid()
    assert 0 < facts.uptime <= guest.uptime()


def test_package_managers_are_found_by_looking(host):
    expected = tuple(name for name in ("rpm", "dpkg", "flatpak") if shutil.which(name))

    assert host.facts().package_managers == expected


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="this host has no dpkg")
def test_an_installed_package(host, bare):
    version = subprocess.check_output(["dpkg-query", "-W", "-f", "${Version}", "libc6"], text=True)
    package = host.installed("libc6")

    assert (package.manager, package.version) == ("dpkg", version)
    assert host.installed("no-such-package") is None
    assert bare.installed("libc6") is None


def test_programs(guest):
    assert guest.has_program("sh")
    assert not guest.has_program("no-such-program")
    assert not guest.has_program("sh; true")


def test_a_user_has_their_own_environment(host):
    """The one who runs the tests; for root, somebody else too."""
    for name in {getpass.getuser(), *(["nobody"] if os.geteuid() == 0 else [])}:
        user = pwd.getpwnam(name)
        asked = host.as_user(name)
        printed = asked.succeed(
            'id -un; echo "$HOME $USER $XDG_RUNTIME_DIR $DBUS_SESSION_BUS_ADDRESS $A"', env={"A": "b c"}
        )
        runtime = f"/run/user/{user.pw_uid}"
        assert printed.splitlines() == [name, f"{user.pw_dir} {name} {runtime} unix:path={runtime}/bus b c"]
        result = asked.execute(["sh", "-c", "cat; exit 3"], stdin=b"in")
        assert (result.status, result.stdout, result.command) == (3, "in", f"sh -c 'cat; exit 3'  # as {name}")


def test_a_user_that_there_is_not(host):
    result = host.as_user("no-such-user").execute("true")

    assert result.status != 0
    assert "no-such-user" in result.stderr
    with pytest.raises(ConfigError, match="no name of a user"):
        host.as_user("a b").execute("true")


def test_mounts(guest):
    targets = {mount.target: mount for mount in guest.mounts()}

    assert targets["/proc"].type == "proc"


def test_files_are_hashed_in_one_go(guest, tmp_path):
    names = [f"file {i}" for i in range(300)] + ["-c", "back\\slash", "grüße"]
    for name in names:
        (tmp_path / name).write_text(name)
    paths = [f"{tmp_path}/{name}" for name in names]
    hashes = guest.hash_files([*paths, f"{tmp_path}/missing"])

    assert hashes == {path: hashlib.sha256(Path(path).name.encode()).hexdigest() for path in paths}
    assert guest.hash_files([]) == {}


@pytest.fixture
def capable(tmp_path: Path) -> Path:
    """A program that may open raw sockets."""
    setcap = look_for_program("setcap")
    if os.geteuid() != 0 or setcap is None:
        pytest.skip("only root sets capabilities, and with setcap")
    program = tmp_path / "a program"
    shutil.copy("/bin/true", program)
    subprocess.run([setcap, "cap_net_raw,cap_bpf=ep", program], check=True)
    return program


def test_capabilities_by_getcap(host, capable):
    assert str(host.capabilities(str(capable))) == "cap_bpf,cap_net_raw=ep"
    assert str(host.capabilities("/bin/true")) == "none"
    with pytest.raises(GuestError, match="the capabilities of /no/such cannot be read"):
        host.capabilities("/no/such")


@pytest.mark.skipif(shutil.which("getfattr") is None, reason="this host has no getfattr")
def test_capabilities_by_getfattr(capable):
    attribute = ["getfattr", "--absolute-names", "--name=security.capability", "--encoding=hex", capable]
    printed = subprocess.check_output(attribute, text=True)

    assert str(parse_capabilities(f"\x1egetfattr\n{printed}", str(capable))) == "cap_bpf,cap_net_raw=ep"


def test_a_port_opens(guest):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        with pytest.raises(WaitTimeoutError, match=f"TCP port {port} to open") as caught:
            guest.wait_for_open_port(port, timeout=1.5)
        assert caught.value.details.startswith("Open ports: [")
        timer = threading.Timer(0.5, listener.listen)
        timer.start()
        guest.wait_for_open_port(port, timeout=10)
        timer.join()


def test_a_file_appears(guest, tmp_path):
    marker = tmp_path / "it's a marker"
    with pytest.raises(WaitTimeoutError, match="to appear"):
        guest.wait_for_file(str(marker), timeout=0.3)
    timer = threading.Timer(0.5, marker.touch)
    timer.start()
    guest.wait_for_file(str(marker), timeout=10)
    timer.join()


def test_a_root_without_bootc_and_ostree_is_no_deployment(bare):
    assert bare.deployment() is None


def test_a_guest_without_systemd_says_so(bare):
    with pytest.raises(GuestError, match="systemctl cannot be asked for units"):
        bare.unit("ssh.service")
    with pytest.raises(GuestError, match="systemctl cannot list the failed units"):
        bare.failed_units()
    with pytest.raises(GuestError, match="systemctl cannot list the jobs"):
        bare.stuck_jobs()
    with pytest.raises(GuestError, match="journalctl cannot be asked"):
        bare.journal()
