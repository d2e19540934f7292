"""A sparse ext4 image that holds a folder of the merged layers: /var, or the whole root where EROFS cannot be had.

Made by mke2fs(8) and debugfs(8) alone, so that neither root nor a mount is needed on the host; owners, modes, times
and extended attributes are those of the layers.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_bootc.command import CommandError, find_program, run
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.tar import EntryKind, TarEntry
from pytest_bootc.disk.tree import Node, Tree, implied_folder
from pytest_bootc.errors import DiskError

_INSTALL = "install e2fsprogs"
_TYPE_BITS = {
    EntryKind.FILE: 0o100000,
    EntryKind.FOLDER: 0o040000,
    EntryKind.CHAR: 0o020000,
    EntryKind.BLOCK: 0o060000,
    EntryKind.FIFO: 0o010000,
}
_NODE_LETTERS = {EntryKind.CHAR: "c", EntryKind.BLOCK: "b", EntryKind.FIFO: "p"}
_ZEROS = bytes(1 << 20)
# debugfs takes the content of a file from a file: how many bytes of these are on the host's disk at once.
_BATCH = 256 << 20
_LARGEST_DEVICE = 65535  # that debugfs makes
# One block holds what does not fit into the inode; each attribute has 16 bytes of header, and is aligned twice.
_ATTRIBUTE_ROOM, _ATTRIBUTE_HEADER = 4096 - 36, 16 + 6
_FIRST_SECOND, _LAST_SECOND = -(1 << 31), (1 << 34) - (1 << 31) - 1  # ext4 keeps 34 bits


@dataclass(frozen=True)
class Ext4:
    """A file system to make: its label, its size in MiB, and for how many KiB of it there is one inode."""

    label: str
    mib: int
    inode_ratio_kib: int = 32


def make_ext4(tree: Tree, folder: str, image: Path, shape: Ext4, deadline: Deadline) -> list[str]:
    """Make a file system with what the tree has below ``folder``; return what was left out, one line each.

    It has a folder ``lost+found`` besides, and of times no fractions of a second.

    :raises ConfigError: e2fsprogs is not installed.
    :raises DiskError: one of its programs failed.
    """
    scratch = image.with_name(f"{image.name}.content")
    scratch.mkdir()
    try:
        _format(image, shape, deadline)
        script = _Script(tree, scratch)
        batch: list[str] = []
        for command in script.commands(folder):
            batch.append(command)
            if script.held >= _BATCH:
                _debugfs(image, scratch, batch, deadline)
                batch.clear()
                script.let_go()
        if batch:
            _debugfs(image, scratch, batch, deadline)
    finally:
        shutil.rmtree(scratch)
    return script.losses


def _format(image: Path, shape: Ext4, deadline: Deadline) -> None:
    mke2fs = find_program("mke2fs", resolution=_INSTALL)
    # Inode tables that are left for later take no space; who mounts it has to say noinit_itable, or a thread of the
    # kernel would write them all while the guest boots. Blocks and inodes as of a large file system, whatever the
    # size: small inodes have no room for times after 2038.
    extended = "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"
    ratio = str(shape.inode_ratio_kib * 1024)
    options = ["-t", "ext4", "-m", "0", "-b", "4096", "-I", "256", "-i", ratio, "-J", "size=64"]
    options += ["-L", shape.label, "-E", extended]
    try:
        run([mke2fs, "-q", "-F", *options, image, f"{shape.mib}M"], deadline=deadline)
    except CommandError as error:
        raise DiskError(f"could not make the file system {shape.label}", details=str(error)) from error


def _debugfs(image: Path, scratch: Path, commands: list[str], deadline: Deadline) -> None:
    script = scratch / "commands"
    script.write_bytes(b"".join(os.fsencode(f"{command}\n") for command in commands))
    try:
        done = run([find_program("debugfs", resolution=_INSTALL), "-w", "-f", script, image], deadline=deadline)
    except CommandError as error:
        raise DiskError(f"could not fill the file system {image.name}", details=str(error)) from error
    # debugfs goes on after an error and exits with 0; it tells errors on standard error, below its banner.
    trouble = [line for line in done.stderr.decode(errors="replace").splitlines() if not line.startswith("debugfs ")]
    if trouble:
        raise DiskError(f"could not fill the file system {image.name}", details="\n".join(trouble[:10]))


class _Script:
    """The commands that give an empty file system the content of a folder of the tree.

    ``held`` is the size in bytes of the files that commands given out so far refer to.
    """

    def __init__(self, tree: Tree, scratch: Path) -> None:
        self.held = 0
        self.losses: list[str] = []
        self._tree = tree
        self._scratch = scratch
        self._first_name: dict[int, str] = {}
        self._links: dict[int, int] = {}
        self._numbers = itertools.count()

    def let_go(self) -> None:
        """Remove these files: the commands have been carried out."""
        for file in self._scratch.iterdir():
            file.unlink()
        self.held = 0

    def commands(self, folder: str) -> Iterator[str]:
        """The commands, in an order that works."""
        real = self._tree.real_path(folder)
        if real is None:
            return
        # A folder's time changes with each entry made in it: attributes come last.
        made: list[tuple[str, TarEntry]] = []
        if real not in self._tree.nodes:
            made.append(("/", implied_folder("")))
        for path, node in self._tree.below(real):
            inside = "/" + path[len(real) :].lstrip("/")
            obstacle = _obstacle(inside, node.entry)
            if obstacle:
                self.losses.append(f"{path!r} is left out: {obstacle}")
            else:
                yield from self._make(inside, node)
                made.append((inside, node.entry))
        for inside, entry in made:
            yield from self._attributes(inside, entry)
        for identity, count in self._links.items():
            if count > 1:
                yield f"sif {_quoted(self._first_name[identity])} links_count {count}"

    def _make(self, inside: str, node: Node) -> Iterator[str]:
        entry = node.entry
        if inside == "/":
            return
        parent, _, name = inside.rpartition("/")
        yield f"cd {_quoted(parent or '/')}"
        identity = id(entry)
        if entry.kind is not EntryKind.FOLDER and identity in self._first_name:
            self._links[identity] += 1
            yield f"ln {_quoted(self._first_name[identity])} {_quoted(name)}"
            return
        self._first_name[identity] = inside
        self._links[identity] = 1
        if entry.kind is EntryKind.FOLDER:
            if inside == "/lost+found":
                return
            yield f"mkdir {_quoted(name)}"
        elif entry.kind is EntryKind.FILE:
            yield f"write {_quoted(str(self._content(node)))} {_quoted(name)}"
        elif entry.kind is EntryKind.SYMLINK:
            yield f"symlink {_quoted(name)} {_quoted(entry.target)}"
        elif entry.kind in _NODE_LETTERS:
            numbers = "" if entry.kind is EntryKind.FIFO else " {} {}".format(*entry.device)
            yield f"mknod {_quoted(name)} {_NODE_LETTERS[entry.kind]}{numbers}"

    def _attributes(self, inside: str, entry: TarEntry) -> Iterator[str]:
        path = _quoted(inside)
        yield f"sif {path} uid {entry.uid}"
        yield f"sif {path} gid {entry.gid}"
        yield f"sif {path} mtime @{min(max(int(entry.mtime), _FIRST_SECOND), _LAST_SECOND)}"
        if entry.kind in _TYPE_BITS:
            yield f"sif {path} mode 0{_TYPE_BITS[entry.kind] | entry.mode:o}"
        room = _ATTRIBUTE_ROOM
        for name, value in sorted(entry.xattrs.items()):
            size = len(os.fsencode(name)) + len(value) + _ATTRIBUTE_HEADER
            if not _is_plain(name) or size > room:
                self.losses.append(f"{inside!r} loses its extended attribute {name!r}")
                continue
            room -= size
            file = self._scratch / f"xattr-{next(self._numbers)}"
            file.write_bytes(value)
            self.held += len(value)
            yield f"ea_set -f {_quoted(str(file))} {path} {_quoted(name)}"

    def _content(self, node: Node) -> Path:
        file = self._scratch / f"file-{next(self._numbers)}"
        with self._tree.layers[node.layer].open("rb") as tar, file.open("wb") as out:
            tar.seek(node.entry.offset)
            left = node.entry.size
            while left:
                chunk = tar.read(min(left, len(_ZEROS)))
                if not chunk:
                    raise DiskError(f"{self._tree.layers[node.layer]} is shorter than its own index says")
                if chunk == _ZEROS:
                    out.seek(len(chunk), os.SEEK_CUR)
                else:
                    out.write(chunk)
                left -= len(chunk)
            out.truncate(node.entry.size)
        self.held += node.entry.size
        return file


def _obstacle(inside: str, entry: TarEntry) -> str:
    """Why debugfs cannot make this; nothing where it can."""
    if not _is_plain(inside + entry.target):
        return "its name or target has a control character"
    if max(entry.device) > _LARGEST_DEVICE:
        return "its device number is too large"
    return ""


def _is_plain(text: str) -> bool:
    return not any(letter < " " for letter in text)


def _quoted(text: str) -> str:
    """As libss reads it: in double quotes, a double quote doubled."""
    return '"' + text.replace('"', '""') + '"'
