"""A sparse ext4 image that holds a folder of the merged layers: /var, or the whole root where EROFS cannot be had.

Made by mke2fs(8) and debugfs(8) alone, so that neither root nor a mount is needed on the host; owners, modes, times
and extended attributes are those of the layers.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_bootc.command import CommandError, find_program, run
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.tar import EntryKind, TarEntry
from pytest_bootc.disk.tree import Node, Tree
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


@dataclass(frozen=True)
class Ext4:
    """A file system to make: its label, its size in MiB, and for how many KiB of it there is one inode."""

    label: str
    mib: int
    inode_ratio_kib: int = 32


def make_ext4(tree: Tree, folder: str, image: Path, shape: Ext4, deadline: Deadline) -> list[str]:
    """Make a file system with what the tree has below ``folder``; return what was left out, one line each.

    :raises ConfigError: e2fsprogs is not installed.
    :raises DiskError: one of its programs failed.
    """
    scratch = image.with_name(f"{image.name}.content")
    scratch.mkdir()
    try:
        _format(image, shape, deadline)
        losses: list[str] = []
        commands = list(_Script(tree, scratch, losses).commands(folder))
        if commands:
            _debugfs(image, commands, deadline)
    finally:
        shutil.rmtree(scratch)
    return losses


def _format(image: Path, shape: Ext4, deadline: Deadline) -> None:
    mke2fs = find_program("mke2fs", resolution=_INSTALL)
    # Inode tables that are left for later take no space; who mounts it has to say noinit_itable, or a thread of the
    # kernel would write them all while the guest boots.
    extended = "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"
    ratio = str(shape.inode_ratio_kib * 1024)
    options = ["-t", "ext4", "-m", "0", "-i", ratio, "-J", "size=64", "-L", shape.label, "-E", extended]
    try:
        run([mke2fs, "-q", "-F", *options, image, f"{shape.mib}M"], deadline=deadline)
    except CommandError as error:
        raise DiskError(f"could not make the file system {shape.label}", details=str(error)) from error


def _debugfs(image: Path, commands: list[str], deadline: Deadline) -> None:
    script = image.with_name(f"{image.name}.content") / "commands"
    script.write_text("\n".join(commands) + "\n")
    try:
        done = run([find_program("debugfs", resolution=_INSTALL), "-w", "-f", script, image], deadline=deadline)
    except CommandError as error:
        raise DiskError(f"could not fill the file system {image.name}", details=str(error)) from error
    # debugfs goes on after an error and exits with 0; it tells errors on standard error, below its banner.
    trouble = [line for line in done.stderr.decode(errors="replace").splitlines() if not line.startswith("debugfs ")]
    if trouble:
        raise DiskError(f"could not fill the file system {image.name}", details="\n".join(trouble[:10]))


class _Script:
    """The commands that give an empty file system the content of a folder of the tree."""

    def __init__(self, tree: Tree, scratch: Path, losses: list[str]) -> None:
        self._tree = tree
        self._scratch = scratch
        self._losses = losses
        self._first_name: dict[int, str] = {}
        self._links: dict[int, int] = {}
        self._numbers = itertools.count()

    def commands(self, folder: str) -> Iterator[str]:
        """The commands, in an order that works."""
        real = self._tree.real_path(folder)
        if real is None:
            return
        # A folder's time changes with each entry made in it: attributes come last.
        attributes: list[str] = []
        for path, node in self._tree.below(real):
            inside = "/" + path[len(real) :].lstrip("/")
            if any(ord(letter) < 32 or letter == "\x7f" for letter in inside + node.entry.target):
                self._losses.append(f"{path!r} is left out: its name has a control character")
                continue
            yield from self._make(inside, node)
            attributes += self._attributes(inside, node.entry)
        yield from attributes
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
        yield f"sif {path} mtime @{int(entry.mtime)}"
        if entry.kind in _TYPE_BITS:
            yield f"sif {path} mode 0{_TYPE_BITS[entry.kind] | entry.mode:o}"
        for name, value in sorted(entry.xattrs.items()):
            file = self._scratch / f"xattr-{next(self._numbers)}"
            file.write_bytes(value)
            yield f"ea_set -f {_quoted(str(file))} {path} {name}"

    def _content(self, node: Node) -> Path:
        file = self._scratch / f"file-{node.layer}-{node.entry.offset}"
        with self._tree.layers[node.layer].open("rb") as tar, file.open("wb") as out:
            tar.seek(node.entry.offset)
            left = node.entry.size
            while left:
                chunk = tar.read(min(left, 1 << 20))
                if not chunk:
                    raise DiskError(f"{self._tree.layers[node.layer]} is shorter than its own index says")
                out.write(chunk)
                left -= len(chunk)
        return file


def _quoted(text: str) -> str:
    """As libss reads it: in double quotes, a double quote doubled."""
    return '"' + text.replace('"', '""') + '"'
