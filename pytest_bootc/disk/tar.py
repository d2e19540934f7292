"""What the members of a layer tar mean, and which of them are refused (OCI image-spec, layer.md).

Nothing is ever extracted. What tools would understand differently is refused: the tar is indexed by another program.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, NoReturn

from pytest_bootc.disk.members import Member, Members, Records, Refusals, parsed

_PATH_LIMIT = 4096
_PART_LIMIT = 255
_XATTR = b"SCHILY.xattr."
_GNU_SPARSE = b"GNU.sparse."
_SPARSE, _PRE_POSIX = 0x53, 0x00  # S, NUL
_SECONDS = re.compile(rb"-?\d{1,19}(\.\d*)?")
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_REMADE = "is a folder that one layer removes and makes again, which tools understand differently"
_SLASH = 0x2F
_NO_XATTRS: Mapping[str, bytes] = {}
_NO_DEVICE = (0, 0)


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
_FILE, _FOLDER, _HARDLINK, _WHITEOUT_KIND, _OPAQUE_KIND = (
    EntryKind.FILE, EntryKind.FOLDER, EntryKind.HARDLINK, EntryKind.WHITEOUT, EntryKind.OPAQUE,
)  # fmt: skip
_DEVICES = (EntryKind.CHAR, EntryKind.BLOCK)
_LINKS = (EntryKind.HARDLINK, EntryKind.SYMLINK)


class TarEntry(NamedTuple):
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
    refusals = Refusals(path.stem[:12])
    with path.open("rb", buffering=0) as file:
        length = os.fstat(file.fileno()).st_size if size is None else size
        members = Members(file.fileno(), length, refusals)
        reader, shape, entries = _Reader(members, refusals), _Shape(refusals), []
        for member in members:
            entry = reader.entry(member)
            shape.add(entry)
            entries.append(entry)
    shape.check()
    return entries


class _Reader:
    """Makes entries of members."""

    def __init__(self, members: Members, refusals: Refusals) -> None:
        self._number = members.number
        self._decimal = members.decimal
        self._refuse = refusals.refuse

    def entry(self, member: Member) -> TarEntry:
        """The entry that a member is."""
        name, flag, header, offset, size, records = member
        kind = _KINDS.get(flag)
        if kind is None or (records and any(key.startswith(_GNU_SPARSE) for key in records)):
            self._refuse_kind(flag if kind is None else _SPARSE)
        mode, uid, gid = _owned(header[100:124]) or self._each(header)
        mtime: int | float | None = parsed(header[136:148])
        if mtime is None:
            mtime = self._number(header[136:148])
        xattrs = _NO_XATTRS
        if records:
            uid, gid = self._decimal(records, b"uid", uid), self._decimal(records, b"gid", gid)
            mtime = self._seconds(records, mtime)
            xattrs = _xattrs(records)
        if kind is _FILE:
            if name[-1] == _SLASH:
                self._refuse("is a file whose name ends with a slash")
        elif size:
            self._refuse(f"is a {kind.value} with {size} bytes of content")
        path = name.decode("utf-8", "surrogateescape")
        if kind is _FOLDER and name[-1] == _SLASH:
            path = path[:-1]
        if len(name) > _PART_LIMIT or not path or path[0] in "./" or "/." in path or "//" in path or path[-1] == "/":
            path, kind = self._meaning(self._path(name), kind, size)
        target, device = "", _NO_DEVICE
        if kind in _LINKS:
            target = self._target(header, kind, records)
        elif kind in _DEVICES:
            device = self._number(header[329:337]), self._number(header[337:345])
        return TarEntry(path, kind, mode & 0o7777, uid, gid, mtime, size, target, offset, xattrs, device)

    def _each(self, header: bytes) -> tuple[int, int, int]:
        return self._number(header[100:108]), self._number(header[108:116]), self._number(header[116:124])

    def _path(self, raw: bytes) -> str:
        """A name that is not plain as a path inside the image."""
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

    def _target(self, header: bytes, kind: EntryKind, records: Records) -> str:
        raw = records.get(b"linkpath")
        if raw is None:
            raw = header[157:257].partition(b"\0")[0]
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

    def _seconds(self, records: Records, otherwise: int | float) -> int | float:
        text = records.get(b"mtime")
        if text is None:
            return otherwise
        if not _SECONDS.fullmatch(text):
            self._refuse("has a PAX header with a bad mtime")
        return float(text) if b"." in text else int(text)

    def _refuse_kind(self, flag: int) -> NoReturn:
        if flag == _SPARSE:
            self._refuse("is a sparse file of GNU tar, which layers cannot hold", "build the layer without --sparse")
        if flag == _PRE_POSIX:
            self._refuse("is of the kind NUL, from before POSIX")
        self._refuse(f"is of the unknown kind {chr(flag)!r}")


class _Shape:
    """What the members of a layer are to each other."""

    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals
        self._own: dict[str, EntryKind] = {}
        self._removed: set[str] = set()
        self._emptied: set[str] = set()
        self._links: list[TarEntry] = []

    def add(self, entry: TarEntry) -> None:
        """Take the next member."""
        path, kind = entry.path, entry.kind
        if kind is _WHITEOUT_KIND:
            if path in self._own or path in self._removed:
                self._refuse(path, "is removed by a whiteout, and named before that by the same layer")
            self._removed.add(path)
            return
        if kind is _OPAQUE_KIND:
            if path in self._emptied:
                self._refuse(path, "has two opaque whiteouts")
            self._emptied.add(path)
            return
        earlier = self._own.get(path)
        if earlier is not None and not (earlier is kind is _FOLDER):
            self._refuse(path, f"is in the layer twice, as {earlier.value} and as {kind.value}")
        if kind is _FOLDER and path in self._removed:
            self._refuse(path, _REMADE)
        if kind is _HARDLINK:
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
        self._refusals.member = path.encode("utf-8", "surrogateescape")
        self._refusals.refuse(why)


@lru_cache(maxsize=4096)
def _owned(fields: bytes) -> tuple[int, int, int] | None:
    """Mode, owner and group, of the fields that lie side by side; ``None`` where one cannot be read."""
    mode, uid, gid = parsed(fields[:8]), parsed(fields[8:16]), parsed(fields[16:])
    return None if mode is None or uid is None or gid is None else (mode, uid, gid)


def _xattrs(records: Records) -> Mapping[str, bytes]:
    found = {
        key.removeprefix(_XATTR).decode("utf-8", "surrogateescape"): value
        for key, value in records.items()
        if key.startswith(_XATTR)
    }
    return found or _NO_XATTRS
