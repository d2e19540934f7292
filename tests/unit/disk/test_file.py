"""What a disk image is, from bytes as the specifications lay them out; tests/integration has those of real tools."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import uuid
from pathlib import Path

import pytest

from pytest_bootc.command import find_program
from pytest_bootc.disk.file import open_disk_file
from pytest_bootc.errors import ConfigError
from pytest_bootc.model import DiskFile

ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"


def mbr(*types: int) -> bytes:
    table = b"".join(struct.pack("<B3xB3xII", 0, kind, 2048, 2048) for kind in types)
    return bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa"


def gpt(*types: str, block: int = 2, size: int = 128, count: int | None = None) -> bytes:
    header = struct.pack("<8s64xQII", b"EFI PART", block, 128 if count is None else count, size)
    entries = b"".join(uuid.UUID(kind).bytes_le.ljust(size, b"\1") for kind in types)
    return mbr(0xEE) + header.ljust((block - 1) * 512, b"\0") + entries.ljust(128 * size, b"\0")


def iso(*sections: int, first: int = 0, record: bytes = b"\0CD001\1EL TORITO SPECIFICATION") -> bytes:
    volume = b"\1CD001\1".ljust(80, b"\0") + struct.pack("<I", 20)
    entries = [b"\x01" + bytes([first]), b"\x88"]
    for number, platform in enumerate(sections, start=1):
        entries += [bytes([0x91 if number == len(sections) else 0x90, platform, 1, 0]), b"\x88"]
    catalog = b"".join(entry.ljust(32, b"\0") for entry in entries)
    blocks = [volume, record.ljust(71, b"\0") + struct.pack("<I", 19), b"\xffCD001\1", catalog]
    return bytes(16 * 2048) + b"".join(block.ljust(2048, b"\0") for block in blocks)


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run([find_program("qemu-img", resolution="run scripts/setup"), *arguments], check=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file whose name says something else than its content."""
    return tmp_path / "disk.iso.xz"


@pytest.mark.parametrize(
    ("content", "uefi"),
    [
        (mbr(0x83), False),
        (mbr(0x83, 0x0C, 0x83, 0xEF), True),
        (mbr(0xEE), False),
        (gpt(LINUX), False),
        (gpt(LINUX, LINUX, ESP), True),
        (gpt(LINUX, ESP, block=100), True),
        (gpt(LINUX, ESP, size=256), True),
        (gpt(LINUX, ESP, ESP).replace(struct.pack("<QII", 2, 128, 128), struct.pack("<QII", 2, 64, 256)), True),
        (gpt(LINUX, ESP).replace(struct.pack("<QII", 2, 128, 128), struct.pack("<QII", 2, 64, 256)), False),
        (gpt(ESP, count=1 << 31), False),
        (gpt(ESP, size=16), False),
    ],
)
def test_disks(file: Path, content: bytes, uefi: bool) -> None:  # noqa: FBT001
    file.write_bytes(content)
    assert open_disk_file(file) == DiskFile(file, "raw", uefi)
    qcow2 = file.with_suffix(".raw")
    qemu_img("convert", "-f", "raw", "-O", "qcow2", "-c", file, qcow2)
    assert open_disk_file(qcow2) == DiskFile(qcow2, "qcow2", uefi)


@pytest.mark.parametrize(
    ("content", "uefi"),
    [(iso(), False), (iso(first=0xEF), True), (iso(0xEF), True), (iso(0, 0xF1, 0xEF), True), (iso(0xEF, 0), True)],
)
def test_isos(file: Path, content: bytes, uefi: bool) -> None:  # noqa: FBT001
    file.write_bytes(content)
    assert open_disk_file(file) == DiskFile(file, "iso", uefi)


def test_an_overlay_is_read_through(file: Path, tmp_path: Path) -> None:
    file.write_bytes(gpt(ESP))
    overlay = tmp_path / "overlay"
    qemu_img("create", "-q", "-f", "qcow2", "-b", file, "-F", "raw", overlay)
    assert open_disk_file(overlay) == DiskFile(overlay, "qcow2", uefi=True)
    file.unlink()
    with pytest.raises(ConfigError, match="is an overlay, and the image that it lies over cannot be opened") as caught:
        open_disk_file(overlay)
    assert str(file) in caught.value.details


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"too short for a sector", "no disk that boots: it has no boot sector"),
        (b"\x55\xaa", "no disk that boots"),
        (bytes(1 << 20), "no disk that boots"),
        (mbr(0x83)[:-1], "no disk that boots"),
        (iso(record=b"\2CD001\1"), "an ISO that does not boot: it has no boot catalog"),
        (iso(0xEF)[:-1], "is cut off: 40959 bytes of 40960"),
        (b"QFI\xfbnothing of the kind", "cannot be read as a qcow2 image"),
        (b"\xfd7zXZ\0\0\4", "is compressed"),
        (b"\x1f\x8b\x08", "is compressed"),
        (b"\x28\xb5\x2f\xfd\4", "is compressed"),
        (b"BZh91AY", "is compressed"),
        (b"PK\3\4\x14", "is compressed"),
    ],
)
def test_what_no_machine_boots_from(file: Path, content: bytes, sentence: str) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=sentence) as caught:
        open_disk_file(file)
    assert str(file) in caught.value.brief
    assert caught.value.resolution


def test_a_compressed_disk_says_how_to_unpack_it(file: Path) -> None:
    file.write_bytes(b"\x28\xb5\x2f\xfd\4")
    with pytest.raises(ConfigError) as caught:
        open_disk_file(file)
    assert caught.value.resolution == f"unpack it first: zstd -dk {file}"


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        open_disk_file(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        with pytest.raises(ConfigError, match="is not a file"):
            open_disk_file(tmp_path / "s")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        open_disk_file(tmp_path / "none")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_of_somebody_else(file: Path) -> None:
    file.write_bytes(mbr(0x83))
    file.chmod(0)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        open_disk_file(file)
