"""Images made of real layer tars."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from pytest_bootc.disk.tar import scan
from pytest_bootc.disk.tree import Tree

Member = tuple[tarfile.TarInfo, bytes]
Files = Mapping[str, bytes | str]


@pytest.fixture
def tree_of(tmp_path: Path, member: Callable[..., Member], tar_of: Callable[..., bytes]) -> Callable[..., Tree]:
    """A tree of one layer for each mapping: path to content (bytes: a file, text: a symbolic link to it)."""

    def make(*layers: Files) -> Tree:
        paths = []
        for number, files in enumerate(layers):
            members = [
                member(path, type=tarfile.SYMTYPE, linkname=what) if isinstance(what, str) else member(path, what)
                for path, what in files.items()
            ]
            paths.append(tmp_path / f"layer-{number}.tar")
            paths[-1].write_bytes(tar_of(*members))
        tree = Tree(paths)
        for path in paths:
            tree.apply(scan(path))
        return tree

    return make
