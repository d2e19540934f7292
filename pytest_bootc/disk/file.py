"""A disk image that exists already: what it is, found from its content and never from its name."""

from __future__ import annotations

import io
import struct
import tempfile
import uuid
from pathlib import Path
from typing import BinaryIO

from pytest_bootc.command import Argument, CommandError, find_program, run
from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import ConfigError
from pytest_bootc.model import DiskFile

_INSTALL = "install qemu-img (Debian: qemu-utils, Fedora: qemu-img), or run scripts/setup"
_WHAT_IT_TAKES = (
    "give a raw disk image, a qcow2 image or an ISO that boots by its own bootloader; "
    "`qemu-img convert -O qcow2` makes one of other formats"
)
_SECONDS = 30.0

_QCOW2 = b"QFI\xfb"
_UNPACK = {
    b"\xfd7zXZ\0": "xz -dk",
    b"\x1f\x8b": "gzip -dk",
    b"\x28\xb5\x2f\xfd": "zstd -dk",
    b"BZh": "bzip2 -dk",
    b"PK\x03\x04": "unzip",
}

_SECTOR = 512
_BOOT_SIGNATURE = b"\x55\xaa"
_PARTITION_TABLE, _PARTITION_ENTRY = 446, 16
_ESP_TYPE = 0xEF
_ESP_GUID = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b").bytes_le
# As many entries as partitioning tools can be told to make, and as large; more is no partition table.
_MOST_ENTRIES, _LARGEST_ENTRY = 4096, 4096

_ISO_BLOCK = 2048
_ISO_MAGIC, _ISO_MAGIC_AT = b"CD001", 32769
_SIZE_AT = 80
_BOOT_RECORD_BLOCK, _BOOT_RECORD = 17, b"\0CD001\1EL TORITO SPECIFICATION"
_CATALOG_AT, _CATALOG_ENTRY = 71, 32
_SECTION_HEADERS = (0x90, 0x91)
_PLATFORM_EFI = 0xEF


def open_disk_file(path: Path) -> DiskFile:
    """The disk image at a path: its format, and whether it boots by UEFI.

    A disk boots by UEFI where it has an EFI system partition (UEFI specification, 5.3 and 5.2.2), an ISO where its boot
    catalog has an entry for EFI (El Torito, 2.0 and 2.3; UEFI specification, 13.3.2.1).

    :raises ConfigError: it cannot be read, or is nothing that a machine boots from.
    """
    try:
        head = _head(path)
        if head.startswith(_QCOW2):
            return DiskFile(path, "qcow2", uefi=_disk_has_efi(path, io.BytesIO(_qcow2_head(path))))
        with path.open("rb") as file:
            if head[_ISO_MAGIC_AT:].startswith(_ISO_MAGIC):
                return DiskFile(path, "iso", uefi=_iso_has_efi(path, file))
            return DiskFile(path, "raw", uefi=_disk_has_efi(path, file))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", resolution="give the path of a disk image that you may read"
        ) from error


def _head(path: Path) -> bytes:
    if path.is_dir():
        raise ConfigError(f"{path} is a folder", resolution=_WHAT_IT_TAKES)
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is not a file", resolution="copy it into a file first: its content must not change")
    with path.open("rb") as file:
        head = file.read(_ISO_MAGIC_AT + len(_ISO_MAGIC))
    if not head:
        raise ConfigError(f"{path} is empty", resolution=_WHAT_IT_TAKES)
    for magic, command in _UNPACK.items():
        if head.startswith(magic):
            raise ConfigError(f"{path} is compressed", resolution=f"unpack it first: {command} {path}")
    return head


def _qcow2_head(path: Path) -> bytes:
    """The first mebibyte of what the image holds, wherever it lies: compressed, or in another file below it."""
    program = find_program("qemu-img", resolution=_INSTALL)
    with tempfile.TemporaryDirectory(prefix="pytest-bootc-") as folder:
        head = Path(folder) / "head"
        arguments: list[Argument] = [program, "dd", "-f", "qcow2", "-O", "raw", "bs=1M", "count=1"]
        try:
            run([*arguments, f"if={path}", f"of={head}"], deadline=Deadline.after(_SECONDS))
        except CommandError as error:
            if "backing file" in error.details:
                raise ConfigError(
                    f"{path} is an overlay, and the image that it lies over cannot be opened",
                    details=error.details,
                    resolution="put that image where the overlay expects it, or make one of both: qemu-img convert",
                ) from error
            raise ConfigError(
                f"{path} cannot be read as a qcow2 image", details=str(error), resolution="is it whole, and not in use?"
            ) from error
        return head.read_bytes()


def _disk_has_efi(path: Path, disk: BinaryIO) -> bool:
    first = disk.read(_SECTOR)
    if not first.endswith(_BOOT_SIGNATURE) or len(first) != _SECTOR:
        raise ConfigError(
            f"{path} is no disk that boots: it has no boot sector, nor a partition table", resolution=_WHAT_IT_TAKES
        )
    types = first[_PARTITION_TABLE + 4 : _SECTOR - 2 : _PARTITION_ENTRY]
    return _ESP_TYPE in types or _gpt_has_efi(disk)


def _gpt_has_efi(disk: BinaryIO) -> bool:
    header = disk.read(_SECTOR)
    if not header.startswith(b"EFI PART") or len(header) != _SECTOR:
        return False
    block, count, size = struct.unpack_from("<QII", header, 72)
    if count > _MOST_ENTRIES or not 128 <= size <= _LARGEST_ENTRY:
        return False
    disk.seek(block * _SECTOR)
    entries = disk.read(count * size)
    return any(entries[at : at + 16] == _ESP_GUID for at in range(0, len(entries), size))


def _iso_has_efi(path: Path, disk: BinaryIO) -> bool:
    disk.seek((_BOOT_RECORD_BLOCK - 1) * _ISO_BLOCK)
    volume, record = disk.read(_ISO_BLOCK), disk.read(_ISO_BLOCK)
    size, there = struct.unpack_from("<I", volume, _SIZE_AT)[0] * _ISO_BLOCK, disk.seek(0, io.SEEK_END)
    if size > there:
        raise ConfigError(f"{path} is cut off: {there} bytes of {size}", resolution="download or copy it again")
    if not record.startswith(_BOOT_RECORD):
        raise ConfigError(f"{path} is an ISO that does not boot: it has no boot catalog", resolution=_WHAT_IT_TAKES)
    (block,) = struct.unpack_from("<I", record, _CATALOG_AT)
    disk.seek(block * _ISO_BLOCK)
    catalog = disk.read(_ISO_BLOCK).ljust(_ISO_BLOCK, b"\0")
    entries = [catalog[at : at + _CATALOG_ENTRY] for at in range(0, len(catalog), _CATALOG_ENTRY)]
    headers = entries[:1] + [entry for entry in entries[1:] if entry[0] in _SECTION_HEADERS]
    return any(header[1] == _PLATFORM_EFI for header in headers)
