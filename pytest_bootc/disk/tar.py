"""Reads the members of an uncompressed layer tar and refuses those that tools would understand differently.

Formats: ustar and PAX (POSIX.1-2017, pax), GNU long names and base-256 numbers; the meaning of names by the OCI
image-spec, layer.md. Nothing is ever extracted. The file is later indexed by another program, which has ideas of its
own about broken tars; so whatever is not unambiguous is refused here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

from pytest_bootc.errors import ImageError

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_PATH_LIMIT = 4096
_PART_LIMIT = 255
_EXTENSION_LIMIT = 4 << 20
_XATTR = b"SCHILY.xattr."
_LONG_NAMES = {0x4C: b"path", 0x4B: b"linkpath"}  # GNU's L and K
_SPARSE = 0x53
_PRE_POSIX = 0
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_NO_XATTRS: Mapping[str, bytes] = MappingProxyType({})


class EntryKind(Enum):
    """What a member of a layer is; the last two remove what lower layers have."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symlink"
    HARDLINK = "hard link"
    CHAR = "character device"
    BLOCK = "block device"
    FIFO = "fifo"
    WHITEOUT = "whiteout"
    OPAQUE = "opaque whiteout"


_KINDS = {
    0x30: EntryKind.FILE,
    0x37: EntryKind.FILE,
    0x31: EntryKind.HARDLINK,
    0x32: EntryKind.SYMLINK,
    0x33: EntryKind.CHAR,
    0x34: EntryKind.BLOCK,
    0x35: EntryKind.FOLDER,
    0x36: EntryKind.FIFO,
}
_DEVICES = (EntryKind.CHAR, EntryKind.BLOCK)
_LINKS = (EntryKind.HARDLINK, EntryKind.SYMLINK)


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One member of a layer.

    ``path`` has no slash at its ends and no ``.`` or ``..`` in it, ``""`` is the root; bytes that are not UTF-8 are
    surrogates. Of a whiteout it is the path that is removed, of an opaque whiteout the folder that is emptied.
    ``mode`` has the permission bits with set-id and sticky, ``mtime`` seconds since 1970, ``offset`` and ``size`` are
    the place of a file's data in the tar, in bytes. ``target`` is a symbolic link's text, or the path (like ``path``)
    of what a hard link links to: an earlier entry of the same layer or, for the merger to check, of a lower one.
    """

    path: str
    kind: EntryKind
    mode: int
    uid: int
    gid: int
    mtime: int | float
    size: int
    target: str
    offset: int
    xattrs: Mapping[str, bytes]
    device: tuple[int, int]


def scan(path: Path, *, size: int | None = None) -> list[TarEntry]:
    """The members of a layer in their order, all of them checked. The layer is named by the file's name.

    ``size`` is how many bytes of the file are the tar (the rest is padding); all of them if not given.

    :raises ImageError: the tar is truncated or malformed, or a member is hostile or ambiguous; it says which one.
    """
    layer = path.stem[:12]
    with path.open("rb", buffering=0) as file:
        length = os.fstat(file.fileno()).st_size if size is None else size
        entries = list(_Reader(layer, file.fileno(), length).entries())
    _Shape(layer).check(entries)
    return entries


class _Reader:
    """Turns blocks into entries. Written for speed: images have half a million of them."""

    def __init__(self, layer: str, descriptor: int, length: int) -> None:
        self._layer = layer
        self._descriptor = descriptor
        self._length = length
        self._member = "its first member"

    def entries(self) -> Iterator[TarEntry]:
        offset = 0
        extended: dict[bytes, bytes] = {}
        while True:
            block = os.pread(self._descriptor, _BLOCK, offset)
            if not block[:1].strip(b"\0"):
                self._end(block, offset, extended)
                return
            size = self._header(block)
            kind = block[156]
            data = offset + _BLOCK
            if kind in _LONG_NAMES or kind in b"xg":
                offset = self._after(data, size)
                self._extend(extended, kind, self._read(data, size))
                continue
            entry = self._entry(block, data, size, extended)
            yield entry
            offset = self._after(data, entry.size)
            extended = {}

    def _header(self, block: bytes) -> int:
        """Check the header's form; return the size that it declares."""
        if len(block) < _BLOCK:
            self._refuse("is truncated: it ends within a header")
        told = self._number(block[148:156])
        if told != sum(block) - sum(block[148:156]) + 256 and told != _signed_sum(block):
            self._refuse("has a header with a wrong checksum")
        if block[257:262] != b"ustar":
            self._refuse("is not in the ustar, PAX or GNU format")
        return self._number(block[124:136])

    def _end(self, block: bytes, offset: int, extended: Mapping[bytes, bytes]) -> None:
        """Two blocks of zeros, or the end of the file between two members."""
        if extended:
            self._refuse("is truncated: it ends after an extended header")
        if not block or (len(block) < _BLOCK and not block.strip(b"\0") and offset >= self._length):
            return
        if block.strip(b"\0"):
            self._refuse("has a header without a name")
        following = os.pread(self._descriptor, _BLOCK, offset + _BLOCK)
        if following.strip(b"\0"):
            self._refuse("goes on after a single block of zeros")
    def _after(self, data: int, size: int) -> int:
        if data + size > self._length:
            self._refuse(f"is truncated: {data + size - self._length} bytes are missing")
        return data + (size + _BLOCK - 1) // _BLOCK * _BLOCK
