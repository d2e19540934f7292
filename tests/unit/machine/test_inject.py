"""What a machine brings along; the real programs that read it are asked whether they can."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from pytest_bootc.command import find_program, look_for_program
from pytest_bootc.machine.inject import Identity, guest_files, inject_archive
from pytest_bootc.model import GuestFile

IDENTITY = Identity("private of the user\n", "ssh-ed25519 USER", "private of the host\n", "ssh-ed25519 HOST")
FILES = {file.path: file for file in guest_files(IDENTITY, ["sshd.service", "ssh.socket"])}


def unpack(archive: bytes, folder: Path) -> dict[str, tuple[str, bytes | str | None]]:
    """Path to mode and content, as GNU cpio unpacks it."""
    folder.mkdir()
    subprocess.run(["cpio", "-id", "--quiet"], input=archive, cwd=folder, check=True, timeout=10)
    seen: dict[str, tuple[str, bytes | str | None]] = {}
    for path in sorted(folder.rglob("*")):
        what: bytes | str | None = None
        if path.is_symlink():
            what = str(path.readlink())
        elif path.is_file():
            what = path.read_bytes()
        seen[str(path.relative_to(folder))] = (stat.filemode(path.lstat().st_mode), what)
    return seen


@pytest.mark.skipif(look_for_program("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_keys_are_such_as_openssh_reads(tmp_path: Path) -> None:
    identity = Identity.generate()
    for private, public in (
        (identity.user_private, identity.user_public),
        (identity.host_private, identity.host_public),
    ):
        key = tmp_path / "key"
        key.write_text(private)
        key.chmod(0o600)
        told = subprocess.run(["ssh-keygen", "-y", "-f", key], capture_output=True, check=True).stdout.decode()
        assert told.split()[:2] == public.split()
        assert public.startswith("ssh-ed25519 ")
    assert identity.user_public != identity.host_public
    assert Identity.generate().user_private != identity.user_private


def test_private_keys_are_not_shown() -> None:
    assert "private" not in repr(IDENTITY).replace("_private", "")
    assert "USER" in repr(IDENTITY)


def test_everything_lies_below_etc_and_is_closed() -> None:
    assert all(PurePosixPath(path).is_relative_to("/etc") for path in FILES)
    secret = [path for path, file in FILES.items() if file.content == IDENTITY.host_private.encode()]
    assert [(path, FILES[path].mode) for path in secret] == [("/etc/pytest-bootc/ssh_host_ed25519_key", 0o600)]
    assert not any(IDENTITY.user_private.encode() in (file.content or b"") for file in FILES.values())
    assert FILES["/etc/pytest-bootc/authorized_keys"].content == b"ssh-ed25519 USER\n"


def test_links_want_units_that_are_there() -> None:
    links = {path: file.target for path, file in FILES.items() if file.target}
    assert len(links) == 3
    for path, target in links.items():
        assert os.path.normpath(PurePosixPath(path).parent / str(target)) in FILES


@pytest.mark.skipif(look_for_program("sshd") is None, reason="sshd is not installed")
def test_sshd_takes_our_keys_and_settings(tmp_path: Path) -> None:
    drop_in = tmp_path / "00-pytest-bootc.conf"
    content = FILES["/etc/ssh/sshd_config.d/00-pytest-bootc.conf"].content
    assert content is not None
    key = tmp_path / "host_key"
    key.write_text(Identity.generate().host_private)
    key.chmod(0o600)
    drop_in.write_bytes(content.replace(b"/etc/pytest-bootc/ssh_host_ed25519_key", str(key).encode()))
    later = tmp_path / "50-image.conf"
    later.write_text("PermitRootLogin no\nAuthorizedKeysFile none\nPasswordAuthentication no\n")
    main = tmp_path / "sshd_config"
    main.write_text(f"Include {tmp_path}/*.conf\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    sshd = find_program("sshd", resolution="install openssh-server")
    told = subprocess.run([sshd, "-T", "-f", main], capture_output=True, check=True).stdout.decode().splitlines()
    assert "authorizedkeysfile /etc/pytest-bootc/authorized_keys .ssh/authorized_keys" in told
    assert "permitrootlogin without-password" in told
    assert f"hostkey {key}" in told
    assert "passwordauthentication no" in told  # the image's own word


@pytest.mark.skipif(look_for_program("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", ["agent", "ready"])
def test_systemd_reads_the_units(tmp_path: Path, unit: str) -> None:
    path = tmp_path / f"pytest-bootc-{unit}.service"
    content = FILES[f"/etc/systemd/system/pytest-bootc-{unit}.service"].content
    assert content is not None
    program = tmp_path / unit
    program.write_bytes(FILES[f"/etc/pytest-bootc/{unit}"].content or b"")
    path.write_bytes(content.replace(b"/etc/pytest-bootc/", f"{tmp_path}/".encode()))
    analyze = find_program("systemd-analyze", resolution="install systemd")
    done = subprocess.run([analyze, "verify", "--man=no", path], capture_output=True, check=False)
    assert done.stderr.decode() == ""
    assert done.returncode == 0


@pytest.mark.parametrize("program", ["agent", "ready"])
@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_shells_read_the_programs(program: str, shell: str) -> None:
    if look_for_program(shell) is None:
        pytest.skip(f"{shell} is not installed")
    argv = [shell, "sh", "-n"] if shell == "busybox" else [shell, "-n"]
    content = FILES[f"/etc/pytest-bootc/{program}"].content
    subprocess.run(argv, input=content, check=True, timeout=10)


def test_readiness_comes_after_the_images_own_units() -> None:
    assert b"\nAfter=sshd.service ssh.socket\n" in (
        FILES["/etc/systemd/system/pytest-bootc-ready.service"].content or b""
    )
    bare = {file.path: file for file in guest_files(IDENTITY, [])}
    assert b"\nAfter=\n" in (bare["/etc/systemd/system/pytest-bootc-ready.service"].content or b"")


def test_programs_may_lie_elsewhere() -> None:
    files = {file.path: file for file in guest_files(IDENTITY, [], "/run/x/our-")}
    assert b"\nExecStart=/bin/sh /run/x/our-agent\n" in (
        files["/etc/systemd/system/pytest-bootc-agent.service"].content or b""
    )
    assert files["/run/x/our-agent"].content == FILES["/etc/pytest-bootc/agent"].content


def test_the_archive_has_the_files_in_folders_as_the_image_has_them(tmp_path: Path) -> None:
    files = [
        GuestFile("/etc/ssh/conf.d/00.conf", 0o600, b"content"),
        GuestFile("/etc/new/folder", 0o711),
        GuestFile("/etc/new/folder/file", content=b""),
        GuestFile("/etc/link", target="../usr/x"),
        GuestFile("/etc/ssh/run", 0o755, b"#!"),
    ]
    archive = inject_archive(files, {"/etc": 0o751, "/etc/ssh": 0o700, "/etc/ssh/conf.d": 0o750, "/etc/other": 0o777})
    assert unpack(archive, tmp_path / "out") == {
        "inject": ("drwxr-xr-x", None),
        "inject/etc": ("drwxr-x--x", None),
        "inject/etc/ssh": ("drwx------", None),
        "inject/etc/ssh/conf.d": ("drwxr-x---", None),
        "inject/etc/ssh/conf.d/00.conf": ("-rw-------", b"content"),
        "inject/etc/ssh/run": ("-rwxr-xr-x", b"#!"),
        "inject/etc/new": ("drwxr-xr-x", None),
        "inject/etc/new/folder": ("drwx--x--x", None),
        "inject/etc/new/folder/file": ("-rw-r--r--", b""),
        "inject/etc/link": ("lrwxrwxrwx", "../usr/x"),
    }


def test_a_folder_is_made_once(tmp_path: Path) -> None:
    archive = inject_archive(list(FILES.values()), {})
    listed = subprocess.run(["cpio", "-t", "--quiet"], input=archive, capture_output=True, check=True).stdout.decode()
    names = listed.split()
    assert len(names) == len(set(names))
    assert names.index("inject/etc/systemd/system") < names.index(
        "inject/etc/systemd/system/pytest-bootc-agent.service"
    )
