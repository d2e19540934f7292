"""Disks that boot by their own bootloader: one of each kind is booted, and stays as it is."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_bootc.cache import default_home
from pytest_bootc.command import find_program
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.file import open_disk_file
from pytest_bootc.errors import BootTimeoutError, ConfigError
from pytest_bootc.guest import Guest
from pytest_bootc.machine import qemu_engine
from pytest_bootc.machine.qemu import QemuMachine
from pytest_bootc.machine.qemu_backend import QemuBackend
from pytest_bootc.model import DiskFile, MachineSpec, Network, RunConfig
from pytest_bootc.ssh import SSHSession

pytestmark = [pytest.mark.integration, pytest.mark.qemu]

BUILDER = Path(__file__).parents[1] / "images" / "disk.py"
SPEC = MachineSpec(memory_mib=1536, network=Network.RESTRICTED, var_gib=3)
BOOT_SECONDS = 60.0
KINDS = ("bios", "uefi", "iso")


@dataclass(frozen=True)
class Booted:
    """A machine that runs from a disk, a session in it, and the disk's content before."""

    kind: str
    disk: DiskFile
    content: str
    machine: QemuMachine
    ssh: SSHSession


def only(kind: str) -> pytest.MarkDecorator:
    """For a test of one kind: the machines of the others are not started for it."""
    others = pytest.mark.skip(f"a test of {kind}")
    kinds = [each if each == kind else pytest.param(each, marks=others) for each in KINDS]
    return pytest.mark.parametrize("booted", kinds, indirect=True, scope="module")


def built(kind: str) -> Path:
    done = subprocess.run([sys.executable, BUILDER, kind], check=True, stdout=subprocess.PIPE, text=True)
    return Path(done.stdout.strip())


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.fixture(scope="module", params=KINDS)
def booted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """The server on a raw disk for a BIOS, on a compressed qcow2 image for UEFI, and on an ISO."""
    kind = request.param
    path = built(kind)
    if kind == "uefi":
        raw, path = path, tmp_path_factory.mktemp("disk") / "disk.img"
        program = find_program("qemu-img", resolution="run scripts/setup")
        subprocess.run([program, "convert", "-f", "raw", "-O", "qcow2", "-c", raw, path], check=True)
    disk, content = open_disk_file(path), sha256(path)
    with QemuBackend(RunConfig(), default_home()).provision(SPEC, disk) as machine:
        assert isinstance(machine, QemuMachine)
        machine.start(Deadline.after(BOOT_SECONDS))
        limit = Deadline.after(BOOT_SECONDS * machine.facts.time_factor)
        patience = 15.0 * machine.facts.time_factor
        with SSHSession.connect(machine.ssh_endpoint(limit), limit, keepalive=patience) as ssh:
            yield Booted(kind, disk, content, machine, ssh)
    assert sha256(path) == content, "the disk was changed while the machine ran or when it ended"


def test_the_disks_own_bootloader_started_its_kernel(booted: Booted) -> None:
    by_whom = {"bios": "BOOT_IMAGE=vmlinuz", "uefi": "initrd=\\initramfs", "iso": "BOOT_IMAGE=vmlinuz"}
    assert by_whom[booted.kind] in booted.ssh.succeed("cat /proc/cmdline")
    firmware = booted.ssh.execute("test -d /sys/firmware/efi")
    assert (firmware.status == 0) is (booted.kind == "uefi") is booted.disk.uefi
    assert booted.disk.format == {"bios": "raw", "uefi": "qcow2", "iso": "iso"}[booted.kind]


def test_the_machine_says_what_it_is(booted: Booted) -> None:
    first, second, *_ = booted.machine.facts.notes
    firmware = "UEFI without Secure Boot (OVMF" if booted.kind == "uefi" else "the BIOS of QEMU"
    assert first.startswith(f"disk {booted.disk.path.name} ({booted.disk.format})")
    assert f"; firmware: {firmware}" in first
    assert ("as a CD-ROM beside an empty disk of 3 GiB" in first) is (booted.kind == "iso")
    assert "the disk's own bootloader sets the kernel's arguments" in second
    assert booted.machine.facts.kernel_arguments == ""


def test_nothing_failed_and_nothing_waits(booted: Booted) -> None:
    guest = Guest(booted.ssh)
    assert [unit.name for unit in guest.failed_units()] == []
    assert booted.ssh.execute("systemctl is-system-running --wait", timeout=120).stdout.strip() == "running"


def test_what_the_machine_brought_along(booted: Booted) -> None:
    listed = booted.ssh.succeed("find / -xdev -name '*pytest-bootc*' -not -name pytest-bootc-image | sort").split()
    assert listed == ["/etc/pytest-bootc", "/etc/ssh/sshd_config.d/00-pytest-bootc.conf"]
    modes = booted.ssh.succeed("stat -c '%a %U %n' /etc/pytest-bootc/* /run/credentials/@system").splitlines()
    assert modes == [
        "600 root /etc/pytest-bootc/authorized_keys",
        "600 root /etc/pytest-bootc/ssh_host_ed25519_key",
        "644 root /etc/pytest-bootc/ssh_host_ed25519_key.pub",
        "700 root /run/credentials/@system",
    ]


def test_no_key_is_on_the_command_line(booted: Booted) -> None:
    words = Path(f"/proc/{booted.machine.process_id('qemu')}/cmdline").read_text().split("\0")
    assert len([word for word in words if word.startswith("type=11,path=")]) == 8
    assert not [word for word in words if "ssh-ed25519" in word or "PRIVATE" in word or "credential.binary" in word]


def test_the_agent_answers(booted: Booted) -> None:
    assert booted.machine.control("id -un", Deadline.after(60)) == (0, "root\n")


def test_the_firmware_shows_a_display(booted: Booted, tmp_path: Path) -> None:
    picture = booted.machine.screenshot(tmp_path / "screen.png", Deadline.after(30))
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@only("iso")
def test_an_iso_has_an_empty_disk_beside_it(booted: Booted) -> None:
    assert booted.ssh.succeed("blockdev --getsize64 /dev/vda").strip() == str(3 << 30)
    booted.ssh.succeed("echo written >/dev/vda && sync && echo 3 >/proc/sys/vm/drop_caches")
    assert booted.ssh.succeed("head -c 8 /dev/vda") == "written\n"
    booted.ssh.fail("dd if=/dev/zero of=/dev/sr0 bs=2048 count=1")


@only("uefi")
def test_a_disk_keeps_what_was_written_over_a_reboot(booted: Booted) -> None:
    before = booted.ssh.boot_id()
    booted.ssh.succeed("echo kept >/etc/kept && sync")
    booted.machine.reboot(Deadline.after(BOOT_SECONDS))
    limit = Deadline.after(BOOT_SECONDS * booted.machine.facts.time_factor)
    booted.ssh.reconnect(limit, booted.machine.ssh_endpoint(limit))
    assert booted.ssh.boot_id() != before
    assert booted.ssh.succeed("cat /etc/kept") == "kept\n"


def test_the_file_stays_as_it_is(booted: Booted) -> None:
    booted.ssh.succeed("echo written >/etc/written && cp /usr/bin/true /usr/written && sync", timeout=240)
    assert sha256(booted.disk.path) == booted.content


def test_tables_of_a_partitioning_tool(tmp_path: Path) -> None:
    sfdisk = find_program("sfdisk", resolution="run scripts/setup")
    scripts = {
        "label: dos\nsize=4MiB, type=c\ntype=83\n": False,
        "label: dos\nsize=4MiB, type=83\nsize=4MiB, type=ef\n": True,
        "label: gpt\nsize=4MiB, type=21686148-6449-6E6F-744E-656564454649\ntype=L\n": False,
        "label: gpt\nsize=4MiB, type=L\ntype=U\n": True,
        "label: gpt\ntable-length: 1024\n127: size=4MiB, type=U\n": True,
    }
    for number, (script, uefi) in enumerate(scripts.items()):
        disk = tmp_path / f"{number}"
        with disk.open("wb") as file:
            file.truncate(32 << 20)
        subprocess.run([sfdisk, "--quiet", disk], input=script, text=True, check=True)
        assert open_disk_file(disk) == DiskFile(disk, "raw", uefi), script


def test_isos_of_a_mastering_tool(tmp_path: Path) -> None:
    xorriso = find_program("xorriso", resolution="run scripts/setup")
    content = tmp_path / "content"
    content.mkdir()
    for name in ("bios", "efi"):
        (content / name).write_bytes(bytes(2048))
    bios, efi = ["-b", "bios", "-no-emul-boot"], ["-e", "efi", "-no-emul-boot"]
    for words, uefi in ((bios, False), (efi, True), ([*bios, "-eltorito-alt-boot", *efi], True)):
        disk = tmp_path / "disk"
        arguments = [xorriso, "-as", "mkisofs", "-quiet", *words, "-o", disk, content]
        subprocess.run(arguments, check=True, stderr=subprocess.DEVNULL)
        assert open_disk_file(disk) == DiskFile(disk, "iso", uefi), words
        disk.unlink()
    subprocess.run([xorriso, "-as", "mkisofs", "-quiet", "-o", disk, content], check=True, stderr=subprocess.DEVNULL)
    with pytest.raises(ConfigError, match="an ISO that does not boot"):
        open_disk_file(disk)


def test_a_disk_that_takes_no_credentials_says_what_it_needs(tmp_path: Path) -> None:
    endless_loop = b"\xeb\xfe"
    disk = tmp_path / "disk"
    disk.write_bytes(endless_loop.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    with QemuBackend(RunConfig(), default_home()).provision(SPEC, open_disk_file(disk)) as machine:
        with pytest.raises(BootTimeoutError, match="was not ready within") as caught:
            machine.start(Deadline.after(1))
        assert "through systemd >= 256" in caught.value.resolution
        assert "use --host" in caught.value.resolution


def test_uefi_without_firmware_on_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu_engine, "descriptor_folders", lambda: (tmp_path,))
    backend = QemuBackend(RunConfig(), default_home())
    with (
        pytest.raises(ConfigError, match="no UEFI firmware for QEMU"),
        backend.provision(SPEC, DiskFile(tmp_path / "disk", "raw", uefi=True)),
    ):
        raise AssertionError("a machine without firmware")
