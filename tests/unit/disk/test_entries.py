from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_bootc.disk import entries
from pytest_bootc.disk.tar import EntryKind, TarEntry, scan


@pytest.fixture
def found(tmp_path: Path, member: Callable[..., Any], tar_of: Callable[..., bytes]) -> list[TarEntry]:
    """One member of each kind, with all that can be said of one."""
    path = tmp_path / "layer.tar"
    path.write_bytes(
        tar_of(
            member("usr/", type=tarfile.DIRTYPE, mode=0o1777, uid=5, gid=6, mtime=1_700_000_000.25),
            member("usr/file", b"content", pax_headers={"SCHILY.xattr.user.x": "y\x00"}),
            member("usr/\udcff\u00e9", b"", uid=1 << 21),
            member("usr/hard", type=tarfile.LNKTYPE, linkname="usr/file"),
            member("usr/sym", type=tarfile.SYMTYPE, linkname="../else"),
            member("usr/char", type=tarfile.CHRTYPE, devmajor=4, devminor=1),
            member("usr/block", type=tarfile.BLKTYPE, devmajor=8, devminor=300),
            member("usr/fifo", type=tarfile.FIFOTYPE),
            member("usr/.wh.gone"),
            member("etc/.wh..wh..opq"),
        )
    )
    return scan(path)


def test_what_is_kept_is_what_was_found(tmp_path: Path, found: list[TarEntry]) -> None:
    assert {entry.kind for entry in found} == set(EntryKind)
    entries.save(found, tmp_path / "kept")
    loaded = entries.load(tmp_path / "kept")
    assert loaded == found
    assert [type(entry) for entry in loaded] == [TarEntry] * len(found)
    assert [type(entry.kind) for entry in loaded] == [EntryKind] * len(found)


def test_a_layer_of_nothing(tmp_path: Path) -> None:
    entries.save([], tmp_path / "kept")
    assert entries.load(tmp_path / "kept") == []


def test_what_is_not_whole_is_not_taken(tmp_path: Path, found: list[TarEntry]) -> None:
    kept = tmp_path / "kept"
    assert entries.load(kept) is None
    entries.save(found, kept)
    whole = kept.read_bytes()
    for at in range(0, len(whole), 3):
        kept.write_bytes(whole[:at])
        assert entries.load(kept) is None
        kept.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        assert entries.load(kept) in (None, found)  # some bits of a frame's head say nothing
