"""Initramfs archives: the kernel's "newc" cpio (Documentation/driver-api/early-userspace/buffer-format.rst).

The kernel unpacks archives that follow each other in one file, so an archive for every machine can be appended to
one that all machines share.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_ALIGNMENT = 4
# Archives that are joined must each end on this boundary to be found by every kernel's unpacker.
_ARCHIVE_ALIGNMENT = 512


@dataclass(frozen=True)
class CpioEntry:
    """A file of the archive, owned by root: ``name`` without leading slash, ``mode`` with the type bits."""

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def folder(name: str, mode: int = 0o755) -> CpioEntry:
    """A folder."""
    return CpioEntry(name, stat.S_IFDIR | mode)


def file(name: str, content: bytes, mode: int = 0o644) -> CpioEntry:
    """A regular file."""
    return CpioEntry(name, stat.S_IFREG | mode, content)


def link(name: str, target: str) -> CpioEntry:
    """A symbolic link."""
    return CpioEntry(name, stat.S_IFLNK | 0o777, target.encode())


def character_device(name: str, major: int, minor: int, mode: int = 0o600) -> CpioEntry:
    """A character device node."""
    return CpioEntry(name, stat.S_IFCHR | mode, device=(major, minor))


def archive(entries: Iterable[CpioEntry]) -> bytes:
    """The archive's bytes; folders must come before what they hold."""
    out = bytearray()
    for number, entry in enumerate([*entries, CpioEntry("TRAILER!!!", 0)], start=1):
        name = entry.name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        fields = (number, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, *entry.device, len(name), 0)
        out += b"070701" + b"".join(b"%08X" % value for value in fields) + name
        _pad(out, _ALIGNMENT)
        out += entry.content
        _pad(out, _ALIGNMENT)
    _pad(out, _ARCHIVE_ALIGNMENT)
    return bytes(out)


def _pad(out: bytearray, alignment: int) -> None:
    out += bytes(-len(out) % alignment)
