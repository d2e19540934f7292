"""One virtual machine of the server image, and what a live disk promises in it."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_bootc.cache import default_home
from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.disk import erofs
from pytest_bootc.disk.live import file_hashes
from pytest_bootc.disk.tar import EntryKind, scan
from pytest_bootc.disk.tree import Tree
from pytest_bootc.errors import ConfigError, GuestError, SSHConnectError
from pytest_bootc.guest import Guest
from pytest_bootc.machine.base import PowerState
from pytest_bootc.machine.qemu import QemuMachine
from pytest_bootc.machine.qemu_backend import QemuBackend
from pytest_bootc.model import LiveDisk, MachineSpec, Network, RunConfig
from pytest_bootc.ssh import SSHSession

pytestmark = [pytest.mark.integration, pytest.mark.qemu]

_BOOT_SECONDS = 60.0


@pytest.fixture(scope="module")
def disk(live_disk: Callable[[str], LiveDisk]) -> LiveDisk:
    return live_disk("server")


@pytest.fixture(scope="module")
def machine(disk: LiveDisk) -> Iterator[QemuMachine]:
    spec = MachineSpec(memory_mib=1536, network=Network.RESTRICTED)
    with QemuBackend(RunConfig(), default_home()).provision(spec, disk) as provisioned:
        assert isinstance(provisioned, QemuMachine)
        provisioned.start(Deadline.after(_BOOT_SECONDS))
        yield provisioned


@pytest.fixture(scope="module")
def ssh(machine: QemuMachine) -> Iterator[SSHSession]:
    with logged_in(machine) as session:
        yield session


@contextmanager
def logged_in(machine: QemuMachine) -> Iterator[SSHSession]:
    slow = machine.facts.time_factor
    limit = Deadline.after(_BOOT_SECONDS * slow)
    with SSHSession.connect(machine.ssh_endpoint(limit), limit, keepalive=15 * slow) as session:
        yield session


def test_the_layout_is_that_of_a_deployment(ssh: SSHSession) -> None:
    mounts = {mount.target: mount for mount in Guest(ssh).mounts()}
    assert (mounts["/"].type, "ro" in mounts["/"].options) == ("erofs", True)
    assert (mounts["/etc"].type, "rw" in mounts["/etc"].options) == ("overlay", True)
    assert (mounts["/var"].type, "rw" in mounts["/var"].options) == ("ext4", True)
    refused = ssh.execute("touch /usr/x")
    assert refused.status != 0
    assert "Read-only file system" in refused.stderr
    ssh.succeed("touch /etc/x /root/x /home/x /opt/x /usr/local/x && rm /etc/x")


def test_var_takes_two_gigabytes(ssh: SSHSession) -> None:
    ssh.succeed("dd if=/dev/zero of=/var/tmp/large bs=1M count=2048 status=none && sync", timeout=240)
    assert ssh.succeed("stat -c %s /var/tmp/large").strip() == str(2048 * 2**20)
    ssh.succeed("rm /var/tmp/large")


def test_a_container_runs_inside(ssh: SSHSession) -> None:
    archive = "/usr/share/pytest-bootc-image/busybox.oci.tar"
    loaded = ssh.succeed(f"podman load -q -i {archive}", timeout=240)
    name = loaded.rpartition("Loaded image: ")[2].strip()
    printed = ssh.succeed(f"podman run --rm --network none {name} busybox echo inside", timeout=240)
    assert printed.strip() == "inside"


def test_the_kernel_shows_the_files_of_the_layers(ssh: SSHSession, disk: LiveDisk) -> None:
    tree = Tree(disk.layers)
    for layer in disk.layers:
        tree.apply(scan(layer))
    listing = ssh.execute(r"find /usr /boot /home /sysroot -xdev -printf '%p\0%y\0%m\0%U\0%G\0%T@\0%l\0'", timeout=240)
    fields = listing.stdout_bytes.decode().split("\0")
    seen = {name: rest for name, *rest in zip(*[iter(fields)] * 7, strict=False)}
    letters = {EntryKind.FILE: "f", EntryKind.FOLDER: "d", EntryKind.SYMLINK: "l"}
    expected = {}
    for top in ("usr", "boot", "home", "sysroot"):
        for path, node in tree.below(top):
            entry = node.entry
            times = f"{int(entry.mtime)}"
            mode = "777" if entry.kind is EntryKind.SYMLINK else f"{entry.mode:o}"
            expected[f"/{path}"] = [
                letters.get(entry.kind, "?"), mode, str(entry.uid), str(entry.gid), times, entry.target
                if entry.kind is EntryKind.SYMLINK else "",
            ]  # fmt: skip
    shown = {name: [*rest[:4], rest[4].partition(".")[0], rest[5]] for name, rest in seen.items()}
    # /usr/local leads into /var, which is a disk of its own.
    assert shown == expected
    assert len(expected) > 5000


def test_capabilities_reach_the_guest(ssh: SSHSession) -> None:
    attributes = "/usr/share/pytest-bootc-image/attributes"
    assert "cap_net_raw=ep" in ssh.succeed(f"getcap {attributes}/ping")


def test_hashes_of_the_layers_are_those_of_the_running_files(ssh: SSHSession, disk: LiveDisk) -> None:
    hashes = dict(list(file_hashes(disk).items())[:300])
    assert len(hashes) == 300
    assert Guest(ssh).hash_files(list(hashes)) == hashes


def test_the_control_channel_passes_everything(machine: QemuMachine) -> None:
    limit = Deadline.after(60)
    assert machine.control("printf 'a\\tb\\n'; echo \"$0 ü €\" >&2; exit 3", limit) == (3, "a\tb\nsh ü €\n")
    status, output = machine.control("head -c 300000 /dev/zero | tr '\\0' x", limit)
    assert (status, len(output)) == (0, 300000)
    assert machine.control("cat", limit) == (0, "")


def test_the_control_channel_gives_up_and_goes_on(machine: QemuMachine) -> None:
    with pytest.raises(GuestError, match="did not answer within 2 s"):
        machine.control("sleep 8", Deadline.after(2))
    assert machine.control("echo next", Deadline.after(60)) == (0, "next\n")


def test_the_port_is_on_the_loopback_only(machine: QemuMachine) -> None:
    endpoint = machine.ssh_endpoint(Deadline.after(10))
    assert endpoint.host == "127.0.0.1"
    assert endpoint.port > 1023
    assert endpoint.host_key is not None


def test_a_restricted_guest_does_not_reach_the_host(ssh: SSHSession, sshd: object) -> None:
    port = sshd.port  # type: ignore[attr-defined]
    reached = ssh.execute(["timeout", "5", "bash", "-c", f"exec 3<>/dev/tcp/10.0.2.2/{port}"], timeout=60)
    assert reached.status != 0


def test_a_screenshot_is_a_picture(machine: QemuMachine, tmp_path: Path) -> None:
    picture = machine.screenshot(tmp_path / "screen.png", Deadline.after(30))
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_console_is_recorded(machine: QemuMachine) -> None:
    machine.control("echo 'a line of its own' >/dev/ttyS0", Deadline.after(30))
    assert machine.wait_for_console_text("a line of its own", Deadline.after(30)).endswith("a line of its own")


def test_only_etc_is_brought_along(ssh: SSHSession) -> None:
    brought = ssh.succeed("find / -xdev -name '*pytest-bootc*' -not -path '/usr/share/pytest-bootc-image*'").split()
    assert brought == []
    below_etc = ssh.succeed("find /etc -name '*pytest-bootc*' | sort").split()
    assert "/etc/pytest-bootc" in below_etc
    assert "/etc/ssh/sshd_config.d/00-pytest-bootc.conf" in below_etc


def test_a_reboot_keeps_var_and_drops_etc(machine: QemuMachine, ssh: SSHSession) -> None:
    before = ssh.boot_id()
    ssh.succeed("echo kept >/var/kept; echo dropped >/etc/dropped; sync")
    machine.reboot(Deadline.after(_BOOT_SECONDS))
    limit = Deadline.after(_BOOT_SECONDS * machine.facts.time_factor)
    ssh.reconnect(limit, machine.ssh_endpoint(limit))
    assert ssh.boot_id() != before
    assert ssh.succeed("cat /var/kept") == "kept\n"
    ssh.fail("test -e /etc/dropped")


def test_a_frozen_machine_is_noticed(machine: QemuMachine) -> None:
    limit = Deadline.after(_BOOT_SECONDS * machine.facts.time_factor)
    pid = machine.process_id("qemu")
    with SSHSession.connect(machine.ssh_endpoint(limit), limit, keepalive=2) as session:
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        try:
            with pytest.raises(SSHConnectError, match="stopped answering"):
                session.execute("sleep 60", timeout=90)
        finally:
            os.kill(pid, signal.SIGCONT)
    assert time.monotonic() - began < 30


def test_another_qemu_boots_the_fallback_root(
    live_disk: Callable[[str], LiveDisk], sshd: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One boot for three things: QEMU 10, a host without mkfs.erofs, and a network that reaches the host."""
    monkeypatch.setattr(erofs, "tool_version", lambda deadline: None)
    disk = live_disk("server")
    assert disk.root_type == "ext4"
    other = default_home() / "tools" / "qemu-10" / "qemu-system-x86_64"
    spec = MachineSpec(memory_mib=1536, network=Network.USER, qemu=str(other))
    with QemuBackend(RunConfig(), default_home()).provision(spec, disk) as machine:
        machine.start(Deadline.after(_BOOT_SECONDS))
        assert machine.facts.emulator.startswith("QEMU 10.")
        assert any("the host has no mkfs.erofs" in note for note in machine.facts.notes)
        assert isinstance(machine, QemuMachine)
        with logged_in(machine) as session:
            mounts = {mount.target: mount for mount in Guest(session).mounts()}
            assert (mounts["/"].type, "ro" in mounts["/"].options) == ("ext4", True)
            hashes = dict(list(file_hashes(disk).items())[:100])
            assert Guest(session).hash_files(list(hashes)) == hashes
            port = sshd.port  # type: ignore[attr-defined]
            banner = session.succeed(
                ["timeout", "20", "bash", "-c", f"head -c 4 </dev/tcp/10.0.2.2/{port}"], timeout=60
            )
            assert banner == "SSH-"


def test_a_machine_without_a_network_answers_on_the_control_channel_and_ends(disk: LiveDisk) -> None:
    spec = MachineSpec(memory_mib=1536, network=Network.NONE)
    with QemuBackend(RunConfig(), default_home()).provision(spec, disk) as machine:
        machine.start(Deadline.after(_BOOT_SECONDS))
        assert isinstance(machine, QemuMachine)
        assert machine.control("ls /sys/class/net", Deadline.after(60)) == (0, "lo\n")
        with pytest.raises(ConfigError, match="the machine has no network, so no SSH"):
            machine.ssh_endpoint(Deadline.after(10))
        pids = [machine.process_id(name) for name in ("qemu", "storage")]
        machine.stop(Deadline.after(90))
        assert machine.power_state() is PowerState.OFF
        assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
        console = re.sub(r"\x1b\[[0-9;]*m", "", machine.console_log().read_text(errors="replace"))
        assert "Power down" in console or "reboot: Power" in console


def test_a_boot_that_the_emulator_broke_is_started_again(disk: LiveDisk) -> None:
    """The emulator cannot be made to err, so the console gets what the guest's kernel would have said."""
    last_words = "\n[    2.07] Oops: int3: 0000 [#1]\n[    2.08] Kernel panic - not syncing: Fatal exception\n"
    spec = MachineSpec(memory_mib=1536, network=Network.RESTRICTED)
    with QemuBackend(RunConfig(), default_home()).provision(spec, disk) as machine:
        assert isinstance(machine, QemuMachine)

        def speak() -> None:
            console = machine.console_log()
            wait_until(console.exists, Deadline.after(30), what="the console")
            with console.open("a") as file:
                file.write(last_words)

        speaker = threading.Thread(target=speak)
        speaker.start()
        machine.start(Deadline.after(_BOOT_SECONDS))
        speaker.join()
        assert [note for note in machine.facts.notes if note.startswith("started a second time")]
        assert "int3" not in machine.console_log().read_text(errors="replace")
