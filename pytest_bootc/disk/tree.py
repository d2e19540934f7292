"""The file tree that the layers of an image add up to, without unpacking anything.

The rules are those of the OCI image specification (layer.md, "Representing Changes"): a whiteout removes what lower
layers put there, an opaque whiteout removes everything that lower layers put into a folder, both whatever their
place in the layer; a file that takes the place of a folder removes what was in it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pytest_bootc.disk.tar import EntryKind, TarEntry
from pytest_bootc.errors import ImageError

_LINKS_FOLLOWED = 40
_REMOVES = (EntryKind.WHITEOUT, EntryKind.OPAQUE)


class Node(NamedTuple):
    """One name in the tree: the entry it stands for, and the number of the layer that has it.

    Names that are hard links to one file have the very same entry.
    """

    layer: int
    entry: TarEntry


class Tree:
    """The merged tree. Paths are relative to the root, without leading slash; the root is ``""``.

    ``useless_whiteouts`` are the paths that a layer removes and no lower layer has; ``emptied_root`` tells whether a
    layer removes everything that is below it.
    """

    def __init__(self, layers: Sequence[Path]) -> None:
        self.layers = tuple(layers)
        self.nodes: dict[str, Node] = {}
        self.useless_whiteouts: list[str] = []
        self.emptied_root = False
        self._children: dict[str, dict[str, None]] = {"": {}}
        self._applied = 0

    def lookup(self, path: str) -> Node | None:
        """The node at a path, with symbolic links followed inside the tree; ``None`` where there is none."""
        real = self.real_path(path)
        return None if real is None else self.nodes.get(real)

    def real_path(self, path: str) -> str | None:
        """The path without symbolic links, or ``None`` where a link leads nowhere or in a circle."""
        done, rest, followed = "", [p for p in path.split("/") if p not in ("", ".")], 0
        while rest:
            part = rest.pop(0)
            if part == "..":
                done = posixpath.dirname(done)
                continue
            here = f"{done}/{part}" if done else part
            node = self.nodes.get(here)
            if node is None:
                return None
            if node.entry.kind is EntryKind.SYMLINK:
                followed += 1
                if followed > _LINKS_FOLLOWED:
                    return None
                target = node.entry.target
                rest = [p for p in target.split("/") if p not in ("", ".")] + rest
                done = "" if target.startswith("/") else done
            else:
                done = here
        return done

    def read(self, path: str) -> bytes:
        """The content of a regular file, links followed.

        :raises ImageError: there is none at this path.
        """
        node = self.lookup(path)
        if node is None or node.entry.kind is not EntryKind.FILE:
            raise ImageError(f"the image has no file /{path}")
        with self.layers[node.layer].open("rb") as tar:
            tar.seek(node.entry.offset)
            return tar.read(node.entry.size)

    def is_file(self, path: str) -> bool:
        """Whether a regular file is at this path, links followed."""
        node = self.lookup(path)
        return node is not None and node.entry.kind is EntryKind.FILE

    def names(self, path: str) -> tuple[str, ...]:
        """The names in a folder, links followed, sorted; empty where there is no such folder."""
        real = self.real_path(path)
        return tuple(sorted(self._children.get(real, ()))) if real is not None else ()

    def below(self, path: str) -> Iterator[tuple[str, Node]]:
        """Everything in a folder, parents first, links not followed; the folder itself comes first."""
        left = [path]
        while left:
            here = left.pop()
            if here in self.nodes:
                yield here, self.nodes[here]
            names = sorted(self._children.get(here, ()), reverse=True)
            left += [f"{here}/{name}" if here else name for name in names]

    def apply(self, entries: Sequence[TarEntry]) -> dict[str, TarEntry]:
        """Put the next layer on top; return the folders that it uses and does not list.

        A layer may name ``etc/hosts`` without naming ``etc``: such a folder keeps what lower layers said of it. A
        folder in which something is removed is used too: who unpacks the layer makes it, be it there or not.

        :raises ImageError: a hard link leads out of the layer, where nobody who unpacks the layer can follow it.
        """
        number, self._applied = self._applied, self._applied + 1
        for entry in entries:
            if entry.kind in _REMOVES:
                self._remove(entry)
        own: dict[str, TarEntry] = {}
        folders: dict[str, None] = {}
        for entry in entries:
            path, kind = entry.path, entry.kind
            folders[path if kind is EntryKind.OPAQUE else path.rpartition("/")[0]] = None
            if kind not in _REMOVES:
                own[path] = entry
                self._add(entry, number)
        for entry in entries:
            if entry.kind in _REMOVES:
                path = entry.path
                self._require_folder(path if entry.kind is EntryKind.OPAQUE else path.rpartition("/")[0], number)
        missing: dict[str, TarEntry] = {}
        for folder in folders:
            self._find_missing(folder, own, missing)
        return dict(sorted(missing.items()))

    def _add(self, entry: TarEntry, number: int) -> None:
        path, kind = entry.path, entry.kind
        node = self._target(entry, number) if kind is EntryKind.HARDLINK else Node(number, entry)
        if kind is EntryKind.FOLDER:
            self._children.setdefault(path, {})
        elif path in self._children:
            self._drop_children(path)
        self._link_parents(path, number)
        self.nodes[path] = node

    def _target(self, entry: TarEntry, number: int) -> Node:
        target = self.nodes.get(entry.target)
        if target is None or target.layer != number or target.entry.kind is EntryKind.FOLDER:
            raise ImageError(
                f"layer {number + 1} makes /{entry.path} a hard link to /{entry.target}, and has no such file itself",
                resolution="build the layer again with a current tool; no engine can unpack it",
            )
        return target

    def _link_parents(self, path: str, number: int) -> None:
        while path:
            parent, _, name = path.rpartition("/")
            siblings = self._children.get(parent)
            if siblings is not None:
                siblings[name] = None
                return
            self._children[parent] = {name: None}
            self.nodes[parent] = Node(number, implied_folder(parent))
            path = parent

    def _require_folder(self, path: str, number: int) -> None:
        if path not in self._children:
            self._children[path] = {}
            self.nodes[path] = Node(number, implied_folder(path))
            self._link_parents(path, number)

    def _find_missing(self, folder: str, own: dict[str, TarEntry], missing: dict[str, TarEntry]) -> None:
        while folder and folder not in own and folder not in missing:
            missing[folder] = self.nodes[folder].entry
            folder = folder.rpartition("/")[0]

    def _remove(self, entry: TarEntry) -> None:
        if entry.kind is EntryKind.OPAQUE:
            self.emptied_root |= not entry.path
            if entry.path in self._children:
                self._drop_children(entry.path)
                self._children[entry.path] = {}
        elif entry.path not in self.nodes:
            self.useless_whiteouts.append(entry.path)
        else:
            self._drop_children(entry.path)
            del self.nodes[entry.path]
            parent, _, name = entry.path.rpartition("/")
            del self._children[parent][name]

    def _drop_children(self, path: str) -> None:
        left = [path]
        while left:
            here = left.pop()
            for name in self._children.pop(here, {}):
                child = f"{here}/{name}" if here else name
                del self.nodes[child]
                left.append(child)


def implied_folder(path: str) -> TarEntry:
    """What a folder is that no layer lists: root's, 0755, of the year 1970."""
    return TarEntry(
        path=path, kind=EntryKind.FOLDER, mode=0o755, uid=0, gid=0, mtime=0, size=0, target="", offset=0,
        xattrs={}, device=(0, 0),
    )  # fmt: skip
