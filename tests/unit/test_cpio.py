"""The archives are unpacked by GNU cpio; the kernel reads the same format."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from pytest_bootc import cpio


def unpack(content: bytes, folder: Path) -> dict[str, tuple[str, bytes | str | None]]:
    """What cpio makes of an archive: path to mode and content."""
    folder.mkdir()
    subprocess.run(["cpio", "-idm", "--quiet"], input=content, cwd=folder, check=True, timeout=10)
    seen: dict[str, tuple[str, bytes | str | None]] = {}
    for path in folder.rglob("*"):
        mode = stat.filemode(path.lstat().st_mode)
        what: bytes | str | None = None
        if path.is_symlink():
            what = str(path.readlink())
        elif path.is_file():
            what = path.read_bytes()
        seen[str(path.relative_to(folder))] = (mode, what)
    return seen


def test_every_kind_arrives(tmp_path: Path) -> None:
    entries = [
        cpio.folder("a"),
        cpio.folder("a/closed", 0o700),
        cpio.file("a/file", b"content", 0o640),
        cpio.file("a/empty", b""),
        cpio.file("a/run", b"#!/bin/sh\n", 0o755),
        cpio.link("a/link", "../somewhere/else"),
        cpio.file("ünï", "ü".encode()),
    ]
    assert unpack(cpio.archive(entries), tmp_path / "out") == {
        "a": ("drwxr-xr-x", None),
        "a/closed": ("drwx------", None),
        "a/file": ("-rw-r-----", b"content"),
        "a/empty": ("-rw-r--r--", b""),
        "a/run": ("-rwxr-xr-x", b"#!/bin/sh\n"),
        "a/link": ("lrwxrwxrwx", "../somewhere/else"),
        "ünï": ("-rw-r--r--", "ü".encode()),
    }


@pytest.mark.parametrize("length", range(9))
def test_names_and_contents_of_any_length_are_aligned(length: int, tmp_path: Path) -> None:
    name, content = "n" * (length + 1), b"c" * length
    entries = [cpio.file(name, content), cpio.file("after", b"x")]
    seen = unpack(cpio.archive(entries), tmp_path / "out")
    assert {path: what for path, (_, what) in seen.items()} == {name: content, "after": b"x"}


def test_devices_and_owners_are_told() -> None:
    content = cpio.archive([cpio.character_device("console", 5, 1), cpio.file("file", b"")])
    listed = subprocess.run(
        ["cpio", "-itvn", "--quiet"], input=content, capture_output=True, check=True, timeout=10
    ).stdout.decode()
    device, file = listed.splitlines()
    assert device.split()[:6] == ["crw-------", "1", "0", "0", "5,", "1"]
    assert file.split()[:4] == ["-rw-r--r--", "1", "0", "0"]


def test_archives_can_be_joined(tmp_path: Path) -> None:
    first = cpio.archive([cpio.file("one", b"1")])
    assert len(first) % 512 == 0
    joined = first + cpio.archive([cpio.file("two", b"2")])
    (tmp_path / "joined").write_bytes(joined)
    # GNU cpio stops behind each archive and reads on where it is told to, at the next block of 512.
    script = "cpio -id --quiet -C 512 <&3; cpio -id --quiet -C 512 <&3; exec 3<&-"
    (tmp_path / "out").mkdir()
    subprocess.run(["sh", "-c", f"exec 3<{tmp_path}/joined; {script}"], cwd=tmp_path / "out", check=True, timeout=10)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one", "two"]


def test_no_two_files_share_a_number() -> None:
    """With a number and a link count above one, the kernel would take them for hard links."""
    content = cpio.archive([cpio.file(f"f{n}", b"") for n in range(3)])
    starts = [at for at in range(0, len(content), 4) if content[at : at + 6] == b"070701"]
    numbers = [int(content[at + 6 : at + 14], 16) for at in starts]
    assert len(set(numbers)) == len(numbers) == 4
