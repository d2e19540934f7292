from __future__ import annotations

from base64 import b64decode
from pathlib import Path

from pytest_bootc.machine.credentials import PROGRAMS, credentials, write_smbios_strings
from pytest_bootc.machine.inject import Identity, guest_files
from pytest_bootc.machine.qemu_command import Engine, Wiring, qemu_command
from pytest_bootc.model import Accelerator, DiskFile, GuestFile, MachineSpec

IDENTITY = Identity("private of the user", "ssh-ed25519 USER", "private of the host", "ssh-ed25519 HOST")


def brought() -> dict[str, bytes]:
    return credentials(guest_files(IDENTITY, ["ssh.service", "sshd.service"], PROGRAMS))


def test_units_and_their_programs() -> None:
    made = brought()
    agent = made["systemd.extra-unit.pytest-bootc-agent.service"].decode()
    ready = made["systemd.extra-unit.pytest-bootc-ready.service"].decode()
    assert "\nExecStart=/bin/sh /run/credentials/@system/pytest-bootc.agent\n" in agent
    assert "\nExecStart=/bin/sh /run/credentials/@system/pytest-bootc.ready\n" in ready
    assert "\nAfter=ssh.service sshd.service\n" in ready
    assert b"pytest-bootc" in made["pytest-bootc.agent"]
    assert b"pytest-bootc" in made["pytest-bootc.ready"]


def test_an_initramfs_which_gets_the_same_credentials_starts_no_agent() -> None:
    agent = brought()["systemd.extra-unit.pytest-bootc-agent.service"].decode()
    assert "\nConditionPathExists=!/etc/initrd-release\n" in agent


def test_targets_want_the_units() -> None:
    dropins = {name: text for name, text in brought().items() if name.startswith("systemd.unit-dropin.")}
    assert dropins == {
        "systemd.unit-dropin.sysinit.target": b"[Unit]\nWants=pytest-bootc-agent.service\n",
        "systemd.unit-dropin.emergency.target": b"[Unit]\nWants=pytest-bootc-agent.service\n",
        "systemd.unit-dropin.multi-user.target": b"[Unit]\nWants=pytest-bootc-ready.service\n",
    }


def test_one_drop_in_wants_all_units_of_a_target() -> None:
    folder = "/etc/systemd/system/multi-user.target.wants"
    made = credentials([GuestFile(f"{folder}/{unit}", target=f"../{unit}") for unit in ("a.service", "b.timer")])
    assert made["systemd.unit-dropin.multi-user.target"] == b"[Unit]\nWants=a.service b.timer\n"


def test_all_else_is_a_line_of_tmpfiles() -> None:
    made = credentials(
        [
            GuestFile("/etc/folder", 0o700),
            GuestFile("/etc/folder/file", 0o640, b"two\nlines"),
            GuestFile("/etc/systemd/system/a.service.d/x.conf", content=b"x"),
            GuestFile("/etc/link", target="../usr/x"),
            GuestFile("/etc/other/a.wants/link", target="x"),
        ]
    )
    assert made == {
        "tmpfiles.extra": b"d /etc/folder 0700 root root -\n"
        b"f+~ /etc/folder/file 0640 root root - dHdvCmxpbmVz\n"
        b"f+~ /etc/systemd/system/a.service.d/x.conf 0644 root root - eA==\n"
        b"L+ /etc/link - - - - ../usr/x\n"
        b"L+ /etc/other/a.wants/link - - - - x\n"
    }


def test_keys_are_files_that_only_root_can_read() -> None:
    lines = [line.split(" ") for line in brought()["tmpfiles.extra"].decode().splitlines()]
    files = {path: (kind, mode, b64decode(content)) for kind, path, mode, _, _, _, content in lines}
    assert files["/etc/pytest-bootc/authorized_keys"] == ("f+~", "0600", b"ssh-ed25519 USER\n")
    assert files["/etc/pytest-bootc/ssh_host_ed25519_key"] == ("f+~", "0600", b"private of the host")
    assert "/etc/ssh/sshd_config.d/00-pytest-bootc.conf" in files
    assert all(path.startswith("/etc/") for path in files)


def test_strings_are_files_of_the_user(tmp_path: Path) -> None:
    named = {"a.b": b"\0\xff", "c": b"text"}
    folder = tmp_path / "credentials"
    for _ in range(2):  # a machine that is started again writes them again
        paths = write_smbios_strings(named, folder)
    assert [path.read_text() for path in paths] == [
        "io.systemd.credential.binary:a.b=AP8=",
        "io.systemd.credential.binary:c=dGV4dA==",
    ]
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_command_line_names_files_and_no_secrets(tmp_path: Path) -> None:
    named = brought()
    strings = write_smbios_strings(named, tmp_path / "credentials")
    places = {name: tmp_path / name for name in ("qmp", "control", "events", "nbd", "console", "overlay", "initrd")}
    wiring = Wiring(**places, variables=tmp_path / "variables", credentials=strings)
    engine = Engine(Path("qemu"), Path("storage"), Accelerator.TCG, "max", pvh=False)
    words = qemu_command(engine, wiring, MachineSpec(), DiskFile(tmp_path / "disk", "raw", uefi=False))
    passed = [words[number + 1] for number, word in enumerate(words) if word == "-smbios"]
    assert passed == [f"type=11,path={path}" for path in strings]
    assert len(passed) == len(named) == 8
    assert not [word for word in words if "ssh-ed25519" in word or "private" in word or "credential.binary" in word]
