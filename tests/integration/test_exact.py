"""The live root against the kernel's own view of the same layers: an overlayfs mount of what GNU tar unpacked."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pytest_bootc.cache import Cache
from pytest_bootc.command import find_program
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.live import Workshop, build_live_disk
from pytest_bootc.image import ImageReference
from pytest_bootc.model import LiveDisk
from pytest_bootc.progress import Silent
from pytest_bootc.source import source_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount an overlay of files with other owners"),
]


@dataclass(frozen=True)
class Fields:
    """Everything that can be told of a file, but for the number of its links."""

    kind: int
    mode: int
    uid: int
    gid: int
    device: int
    mtime: int
    size: int
    content: str
    xattrs: tuple[tuple[str, bytes], ...]


def look(path: Path) -> Fields:
    info = path.lstat()
    content, size = "", 0
    if stat.S_ISREG(info.st_mode):
        content, size = hashlib.sha256(path.read_bytes()).hexdigest(), info.st_size
    elif stat.S_ISLNK(info.st_mode):
        content = str(path.readlink())
    names = [name for name in os.listxattr(path, follow_symlinks=False) if not name.startswith("trusted.overlay.")]
    return Fields(
        kind=stat.S_IFMT(info.st_mode),
        mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
        device=info.st_rdev,
        mtime=int(info.st_mtime),
        size=size,
        content=content,
        xattrs=tuple(sorted((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)),
    )


def tree(root: Path) -> tuple[dict[str, Fields], set[frozenset[str]]]:
    """Every file below a folder, and the sets of names that are one file."""
    files: dict[str, Fields] = {".": look(root)}
    linked: defaultdict[int, set[str]] = defaultdict(set)
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            path = Path(folder, name)
            inside = str(path.relative_to(root))
            files[inside] = look(path)
            if not stat.S_ISDIR(path.lstat().st_mode):
                linked[path.lstat().st_ino].add(inside)
    return files, {frozenset(names) for names in linked.values() if len(names) > 1}


@contextmanager
def overlay(disk_layers: list[Path], folder: Path) -> Iterator[Path]:
    """The layers as a container engine mounts them."""
    lower = []
    for number, layer in enumerate(disk_layers):
        target = folder / str(number)
        target.mkdir()
        subprocess.run(
            ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner", "-xpf", layer, "-C", target],
            check=True,
        )
        _turn_whiteouts(target)
        lower.append(target)
    mount = folder / "merged"
    mount.mkdir()
    names = ":".join(path.name for path in reversed(lower))
    # Relative names: the options of a mount end at one page, and there may be 128 layers.
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={names},ro", mount], check=True, cwd=folder)
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


def _turn_whiteouts(root: Path) -> None:
    for folder, _, names in os.walk(root, topdown=False):
        times = Path(folder).stat()
        for name in [name for name in names if name.startswith(".wh.")]:
            path = Path(folder, name)
            path.unlink()
            if name == ".wh..wh..opq":
                os.setxattr(folder, "trusted.overlay.opaque", b"y")
            else:
                os.mknod(path.with_name(name.removeprefix(".wh.")), stat.S_IFCHR, 0)
        os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))


def live_disk(layout: Path, home: Path) -> LiveDisk:
    reference = ImageReference.parse(f"oci:{layout}:latest")
    source = source_for(reference)
    deadline = Deadline.after(300)
    image = source.resolve(reference, deadline)
    return build_live_disk(image, source, Workshop(Cache(home), deadline, Silent(), 8))


def extracted(disk: LiveDisk, folder: Path) -> tuple[dict[str, Fields], set[frozenset[str]]]:
    """The root as erofs-utils reads it back."""
    files, links = tree(_extract(disk, folder / "preserved", "--preserve"))
    # It changes owners after it has set extended attributes, by which the kernel drops capabilities: a second
    # extraction that leaves the owners alone has them all.
    attributes, _ = tree(_extract(disk, folder / "attributes", "--no-preserve"))
    return {path: replace(fields, xattrs=attributes[path].xattrs) for path, fields in files.items()}, links


def _extract(disk: LiveDisk, target: Path, how: str) -> Path:
    fsck = find_program("fsck.erofs", resolution="run scripts/setup")
    devices = [f"--device={layer}" for layer in disk.layers]
    subprocess.run(
        [fsck, f"--extract={target}", how, "--xattrs", *devices, disk.folder / "root.erofs"],
        check=True,
        capture_output=True,
    )
    return target


@pytest.mark.parametrize("name", ["server", "server-128"])
def test_the_root_is_what_an_overlay_of_the_layers_is(name: str, image_layout: dict[str, Path], tmp_path: Path) -> None:
    disk = live_disk(image_layout[name], tmp_path / "cache")
    unpacked = tmp_path / "overlay"
    unpacked.mkdir()
    with overlay(list(disk.layers), unpacked) as merged:
        expected, expected_links = tree(merged)
    seen, seen_links = extracted(disk, tmp_path)
    # No layer lists the root itself, so that both show when their folder was made.
    expected["."] = replace(expected["."], mtime=seen["."].mtime)
    assert sorted(seen.keys() ^ expected.keys()) == []
    different = {path: (seen[path], fields) for path, fields in expected.items() if seen[path] != fields}
    assert not different, "\n".join(f"{path}: {seen} instead of {fields}" for path, (seen, fields) in different.items())
    assert seen_links == expected_links
    assert len(expected_links) > 0
    assert any(fields.xattrs for fields in expected.values())
