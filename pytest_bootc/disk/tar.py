"""Reads the members of an uncompressed layer tar and refuses those that tools would understand differently.

Formats: ustar and PAX (POSIX.1-2017, pax), GNU long names and base-256 numbers; the meaning of names by the OCI
image-spec, layer.md. Nothing is ever extracted. The file is later indexed by another program, which has ideas of its
own about broken tars; so whatever is not unambiguous is refused here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NoReturn

from pytest_bootc.errors import ImageError

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_PATH_LIMIT = 4096
_PART_LIMIT = 255
_EXTENSION_LIMIT = 4 << 20
_XATTR = b"SCHILY.xattr."
_LONG_NAMES = {0x4C: b"path", 0x4B: b"linkpath"}  # GNU's L and K
_GLOBAL = 0x67
_EXTENSIONS = frozenset({*_LONG_NAMES, _GLOBAL, 0x78})  # 0x78: x, PAX records of the next member
_SPARSE = 0x53
_PRE_POSIX = 0
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
# With an end: some readers would read on into the next field.
_OCTAL = re.compile(rb" *([0-7]*)[ \0]+")
_DECIMAL = re.compile(rb"\d{1,19}")
_SECONDS = re.compile(rb"-?\d{1,19}(\.\d*)?")
# What a global header must not say of every member after it.
_SAYS_SOMETHING = re.compile(
    rb"(path|linkpath|size|uid|gid|mtime|(SCHILY|LIBARCHIVE)\.xattr\..*|GNU\.sparse\..*)", re.DOTALL
)
_NO_XATTRS: Mapping[str, bytes] = {}


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


_Records = dict[bytes, bytes]


def scan(path: Path, *, size: int | None = None) -> list[TarEntry]:
    """The members of a layer in their order, all of them checked. The layer is named by the file's name.

    ``size`` is how many bytes of the file are the tar (the rest is padding); all of them if not given.

    :raises ImageError: the tar is truncated or malformed, or a member is hostile or ambiguous; it says which one.
    """
    layer = path.stem[:12]
    with path.open("rb", buffering=0) as file:
        length = os.fstat(file.fileno()).st_size if size is None else size
        entries = list(_Reader(layer, file.fileno(), length).entries())
    shape = _Shape(layer)
    for entry in entries:
        shape.add(entry)
    shape.check()
    return entries


class _Reader:
    """Turns blocks into entries. Written for speed: images have half a million of them."""

    def __init__(self, layer: str, descriptor: int, length: int) -> None:
        self._layer = layer
        self._descriptor = descriptor
        self._length = length
        self._member = ""

    def entries(self) -> Iterator[TarEntry]:
        offset = 0
        extended: _Records = {}
        while True:
            block = os.pread(self._descriptor, _BLOCK, offset) if offset < self._length else b""
            if not block or block[0] == 0:
                self._end(block, offset, extended)
                return
            size = self._header(block)
            data = offset + _BLOCK
            if block[156] in _EXTENSIONS:
                offset = self._after(data, size)
                self._extend(extended, block[156], os.pread(self._descriptor, size, data))
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

    def _end(self, block: bytes, offset: int, extended: _Records) -> None:
        """Two blocks of zeros, or the end of the file between two members."""
        if extended:
            self._refuse("is truncated: it ends after an extended header")
        if block.strip(b"\0"):
            self._refuse("has a header without a name")
        if os.pread(self._descriptor, _BLOCK, offset + _BLOCK).strip(b"\0"):
            self._refuse("goes on after a single block of zeros")

    def _after(self, data: int, size: int) -> int:
        """Where the next header is."""
        if data + size > self._length:
            self._refuse(f"is truncated: {data + size - self._length} bytes are missing")
        return data + (size + _BLOCK - 1) // _BLOCK * _BLOCK

    def _extend(self, extended: _Records, kind: int, content: bytes) -> None:
        """Take in what an extended header says of the next member."""
        if len(content) > _EXTENSION_LIMIT:
            self._refuse(f"has an extended header of {len(content)} bytes")
        key = _LONG_NAMES.get(kind)
        records = self._records(content) if key is None else {key: content.partition(b"\0")[0]}
        if kind == _GLOBAL:
            if any(_SAYS_SOMETHING.fullmatch(name) for name in records):
                self._refuse("has a global header about names, sizes or owners")
            return
        if records.keys() & extended.keys():
            self._refuse("has two extended headers for one member that contradict each other")
        extended.update(records)

    def _records(self, content: bytes) -> _Records:
        """The records ``LENGTH KEY=VALUE\\n`` of a PAX header."""
        records: _Records = {}
        at = 0
        while at < len(content):
            length, space, _ = content[at : at + 20].partition(b" ")
            end = at + int(length) if space and _DECIMAL.fullmatch(length) else 0
            key, equals, value = content[at + len(length) + 1 : end - 1].partition(b"=")
            if not at < end <= len(content) or content[end - 1] != 0x0A or not equals or not key:
                self._refuse("has a malformed PAX header")
            records[key] = value
            at = end
        return records

    def _entry(self, block: bytes, data: int, size: int, extended: _Records) -> TarEntry:
        raw = self._name(block, extended)
        self._member = raw.decode("utf-8", "surrogateescape")
        kind = _KINDS.get(block[156])
        if kind is None:
            self._refuse_kind(block[156])
        uid, gid = self._number(block[108:116]), self._number(block[116:124])
        mtime: int | float = self._number(block[136:148])
        xattrs = _NO_XATTRS
        if extended:
            size = self._decimal(extended, b"size", size)
            uid, gid = self._decimal(extended, b"uid", uid), self._decimal(extended, b"gid", gid)
            mtime = self._seconds(extended, mtime)
            xattrs = self._xattrs(extended)
        if size and kind is not EntryKind.FILE:
            self._refuse(f"is a {kind.value} with {size} bytes of content")
        if kind is EntryKind.FILE and raw.endswith(b"/"):
            self._refuse("is a file whose name ends with a slash")
        path, kind = self._meaning(self._path(raw), kind, size)
        return TarEntry(
            path,
            kind,
            self._number(block[100:108]) & 0o7777,
            uid,
            gid,
            mtime,
            size,
            self._target(block, kind, extended) if kind in _LINKS else "",
            data,
            xattrs,
            (self._number(block[329:337]), self._number(block[337:345])) if kind in _DEVICES else (0, 0),
        )

    def _name(self, block: bytes, extended: _Records) -> bytes:
        raw = extended.get(b"path")
        if raw is None:
            raw = block[:100].partition(b"\0")[0]
            if block[345]:
                prefix = block[345:500].partition(b"\0")[0]
                self._member = raw.decode("utf-8", "backslashreplace")
                if block[262]:  # old GNU tar keeps times there
                    self._refuse("is part of an incremental GNU archive")
                raw = prefix.rstrip(b"/") + b"/" + raw
        if not raw or b"\0" in raw:
            self._refuse("has a member with an empty name, or with a NUL in it")
        return raw

    def _path(self, raw: bytes) -> str:
        """A name as a path inside the image."""
        text = raw.decode("utf-8", "surrogateescape").rstrip("/")
        parts = text.split("/")
        if ".." in parts:
            self._refuse("climbs out of its folder with '..'")
        if len(raw) > _PART_LIMIT:
            if len(raw) > _PATH_LIMIT:
                self._refuse(f"has a path of {len(raw)} bytes; the limit is {_PATH_LIMIT}")
            if any(len(part) > _PART_LIMIT for part in raw.split(b"/")):
                self._refuse(f"has a name of more than {_PART_LIMIT} bytes")
        if "" in parts or "." in parts:
            return "/".join(part for part in parts if part not in ("", "."))
        return text

    def _meaning(self, path: str, kind: EntryKind, size: int) -> tuple[str, EntryKind]:
        """Tell the names that remove something from those that add (layer.md, "Whiteouts")."""
        if not path and kind is not EntryKind.FOLDER:
            self._refuse(f"is a {kind.value} in the place of the root folder")
        if _WHITEOUT not in path:
            return path, kind
        folder, _, name = path.rpartition("/")
        if any(part.startswith(_WHITEOUT) for part in folder.split("/")):
            self._refuse("lies in a folder that is named like a whiteout")
        if not name.startswith(_WHITEOUT):
            return path, kind
        if kind is not EntryKind.FILE or size:
            self._refuse("is named like a whiteout and is no empty file")
        if name == _OPAQUE:
            return folder, EntryKind.OPAQUE
        hidden = name.removeprefix(_WHITEOUT)
        if hidden in ("", ".", "..") or hidden.startswith(_WHITEOUT):
            self._refuse("is a whiteout of no possible name")
        return (f"{folder}/{hidden}" if folder else hidden), EntryKind.WHITEOUT

    def _target(self, block: bytes, kind: EntryKind, extended: _Records) -> str:
        raw = extended.get(b"linkpath")
        if raw is None:
            raw = block[157:257].partition(b"\0")[0]
        if not raw or b"\0" in raw or len(raw) > _PATH_LIMIT:
            self._refuse("is a link with an empty or impossible target")
        if kind is EntryKind.SYMLINK:
            return raw.decode("utf-8", "surrogateescape")
        target = raw.decode("utf-8", "surrogateescape")
        parts = [part for part in target.split("/") if part not in ("", ".")]
        if ".." in parts:
            self._refuse(f"is a hard link that leads out of the image, to {target!r}")
        if any(part.startswith(_WHITEOUT) for part in parts):
            self._refuse(f"is a hard link to a whiteout, {target!r}")
        return "/".join(parts)

    def _xattrs(self, extended: _Records) -> Mapping[str, bytes]:
        if any(key.startswith(b"GNU.sparse.") for key in extended):
            self._refuse_kind(_SPARSE)
        found = {
            key.removeprefix(_XATTR).decode("utf-8", "surrogateescape"): value
            for key, value in extended.items()
            if key.startswith(_XATTR)
        }
        return found or _NO_XATTRS

    def _decimal(self, extended: _Records, key: bytes, otherwise: int) -> int:
        text = extended.get(key)
        if text is None:
            return otherwise
        if not _DECIMAL.fullmatch(text):
            self._refuse(f"has a PAX header with a bad {key.decode()}")
        return int(text)

    def _seconds(self, extended: _Records, otherwise: int | float) -> int | float:
        text = extended.get(b"mtime")
        if text is None:
            return otherwise
        if not _SECONDS.fullmatch(text):
            self._refuse("has a PAX header with a bad mtime")
        return float(text) if b"." in text else int(text)

    def _number(self, field: bytes) -> int:
        """A number of a header: octal digits with an end, or GNU's base 256 (never negative)."""
        if field[0] == 0x80:
            return int.from_bytes(field[1:], "big")
        match = _OCTAL.fullmatch(field)
        if match is None:
            self._refuse(f"has a number in its header that cannot be read: {field!r}")
        return int(match[1] or b"0", 8)

    def _refuse_kind(self, kind: int) -> NoReturn:
        if kind == _SPARSE:
            self._refuse("is a sparse file of GNU tar, which layers cannot hold", "build the layer without --sparse")
        if kind == _PRE_POSIX:
            self._refuse("is of the kind NUL, from before POSIX", "build the layer with a current tool")
        self._refuse(f"is of the unknown kind {chr(kind)!r}")

    def _refuse(self, why: str, resolution: str = "") -> NoReturn:
        _refuse(self._layer, self._member, why, resolution)


class _Shape:
    """What the members of a layer are to each other."""

    def __init__(self, layer: str) -> None:
        self._layer = layer
        self._own: dict[str, EntryKind] = {}
        self._removed: set[str] = set()
        self._emptied: set[str] = set()
        self._links: list[TarEntry] = []

    def add(self, entry: TarEntry) -> None:
        """Take the next member."""
        path, kind = entry.path, entry.kind
        if kind is EntryKind.WHITEOUT:
            if path in self._own or path in self._removed:
                self._refuse(path, "is removed by a whiteout, and named before that by the same layer")
            self._removed.add(path)
            return
        if kind is EntryKind.OPAQUE:
            if path in self._emptied:
                self._refuse(path, "has two opaque whiteouts")
            self._emptied.add(path)
            return
        earlier = self._own.get(path)
        if earlier is not None and not (earlier is kind is EntryKind.FOLDER):
            self._refuse(path, f"is in the layer twice, as {earlier.value} and as {kind.value}")
        if kind is EntryKind.FOLDER and path in self._removed:
            self._refuse(path, _REMADE)
        if kind is EntryKind.HARDLINK:
            self._link(entry)
        self._own[path] = kind

    def check(self) -> None:
        """Look at what can only be seen when all members are known."""
        for entry in self._links:
            if entry.target in self._own:
                self._refuse(entry.path, f"is a hard link to {entry.target!r}, which comes later in the layer")
        for path in self._emptied:
            if self._own.get(path, EntryKind.FOLDER) is not EntryKind.FOLDER:
                self._refuse(path, f"is emptied by an opaque whiteout, and is a {self._own[path].value}")
        folders = {""}
        for paths in (self._own, self._removed, self._emptied):
            for path in paths:
                self._check_above(path, folders)

    def _link(self, entry: TarEntry) -> None:
        target = self._own.get(entry.target)
        if target is EntryKind.FOLDER or not entry.target:
            self._refuse(entry.path, f"is a hard link to the folder {entry.target!r}")
        if entry.target == entry.path:
            self._refuse(entry.path, "is a hard link to itself")
        if target is None:
            self._links.append(entry)

    def _check_above(self, path: str, folders: set[str]) -> None:
        parent = path.rpartition("/")[0]
        while parent not in folders:
            kind = self._own.get(parent, EntryKind.FOLDER)
            if kind is not EntryKind.FOLDER:
                self._refuse(path, f"lies below {parent!r}, which is a {kind.value} of the same layer")
            if parent in self._removed:
                self._refuse(parent, _REMADE)
            folders.add(parent)
            parent = parent.rpartition("/")[0]

    def _refuse(self, path: str, why: str) -> NoReturn:
        _refuse(self._layer, path, why, "")


_REMADE = "is a folder that one layer removes and makes again, which tools understand differently"


def _refuse(layer: str, member: str, why: str, resolution: str) -> NoReturn:
    where = f"layer {layer}: /{member.lstrip('/')}" if member else f"layer {layer}"
    raise ImageError(
        # Lone surrogates and control characters must not reach a terminal.
        f"{where} {why}".encode("unicode_escape").decode("ascii") if not where.isprintable() else f"{where} {why}",
        resolution=resolution or "build the layer again with a current tool; such a layer is not unpacked here",
    )


def _signed_sum(block: bytes) -> int:
    """The checksum as some old programs made it, with signed characters."""
    unsigned = sum(block) - sum(block[148:156]) + 256
    return unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:])
