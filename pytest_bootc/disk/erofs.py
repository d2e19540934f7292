"""A read-only root from layers as they are: an EROFS index over the layer tars.

``mkfs.erofs`` writes an index for each layer and merges the indexes; the data stays in the tars. Index and tars,
joined into one flat disk, mount as one file system (Linux 6.4 and later; EROFS on-disk format: Linux,
Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

from pytest_bootc.command import Argument, CommandError, look_for_program, run
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.tar import TarEntry
from pytest_bootc.errors import DiskError

OLDEST_TOOL = (1, 7)
"""The first erofs-utils that indexes a tar."""
OLDEST_KERNEL = (6, 4)
"""The first kernel that mounts blocks of 512 bytes and joined devices."""

_SUPERBLOCK, _MAGIC = 1024, 0xE0F5E1E2
_DEVICE_SLOT = 128
_SECTOR = 512
_LONGEST_EXTENT = 511  # the path of one, in QEMU's reader of descriptions
# Two builds of one image are to be the same file.
_FIXED = ("-U", "00000000-0000-0000-0000-000000000000", "--quiet")
# mkfs.erofs takes this for the time of the build, and makes every file at most as young: no time is later than the
# second before the last (before 1970, since times are signed to all but this comparison).
_CLOCK = {"SOURCE_DATE_EPOCH": str(2**64 - 2)}


def tool_version(deadline: Deadline) -> tuple[int, int] | None:
    """Version of the host's mkfs.erofs, ``None`` where it has none."""
    program = look_for_program("mkfs.erofs")
    if program is None:
        return None
    words = run([program, "-V"], deadline=deadline, check=False)
    text = (words.stdout + words.stderr).decode(errors="replace")
    for word in text.replace("-", " ").split():
        parts = word.split(".")
        if len(parts) >= 2 and parts[0].isdigit() and parts[1].isdigit():
            return int(parts[0]), int(parts[1])
    return None


def index_layer(tar: Path, index: Path, deadline: Deadline) -> None:
    """Write the index of one layer.

    :raises DiskError: mkfs.erofs refused the tar, or the disk is full.
    """
    _mkfs(["--tar=i", "--aufs", "-x1", index, tar], deadline, what=f"index the layer {tar.name}")


def merge(indexes: Sequence[Path], merged: Path, deadline: Deadline) -> None:
    """Merge the indexes of all layers, bottom first, into the index of the image."""
    # mkfs.erofs 1.8 takes the lowest layer first; the other way round gives wrong files and no error.
    _mkfs(["--ovlfs-strip=1", merged, *indexes], deadline, what="merge the layers")


def _mkfs(arguments: Sequence[Argument], deadline: Deadline, *, what: str) -> None:
    program = look_for_program("mkfs.erofs")
    if program is None:
        raise DiskError("mkfs.erofs is not installed", resolution="install erofs-utils 1.8, or run scripts/setup")
    try:
        run([program, *_FIXED, *arguments], deadline=deadline, env=_CLOCK)
    except CommandError as error:
        raise DiskError(f"could not {what}", details=str(error)) from error


def devices(index: Path) -> tuple[int, list[tuple[int, int]]]:
    """The block size of an index in bytes, and for each layer its size and place on the joined disk, in blocks.

    :raises DiskError: the file is no EROFS image.
    """
    with index.open("rb") as file:
        head = file.read(_SUPERBLOCK + 128)
        if len(head) < _SUPERBLOCK + 128 or struct.unpack_from("<I", head, _SUPERBLOCK)[0] != _MAGIC:
            raise DiskError(f"{index} is no EROFS image")
        block_bits = head[_SUPERBLOCK + 12]
        count, first_slot = struct.unpack_from("<HH", head, _SUPERBLOCK + 86)
        file.seek(first_slot * _DEVICE_SLOT)
        table = file.read(count * _DEVICE_SLOT)
    return 1 << block_bits, [struct.unpack_from("<II", table, n * _DEVICE_SLOT + 64) for n in range(count)]


def is_whole(index: Path) -> bool:
    """Whether a file is an index, and not cut off."""
    try:
        with index.open("rb") as file:
            head = file.read(_SUPERBLOCK + 128)[_SUPERBLOCK:]
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return False
    if len(head) < 128 or struct.unpack_from("<I", head)[0] != _MAGIC:
        return False
    blocks: int = struct.unpack_from("<I", head, 36)[0]
    return size >= blocks << head[12]


def set_root(index: Path, root: TarEntry) -> None:
    """Write mode, owner and time of ``/`` into an index: the merge makes up its own."""
    with index.open("r+b") as file:
        head = file.read(_SUPERBLOCK + 128)[_SUPERBLOCK:]
        block_bits = head[12]
        (root_number,) = struct.unpack_from("<H", head, 14)
        (inodes_at,) = struct.unpack_from("<I", head, 40)
        at = (inodes_at << block_bits) + 32 * root_number
        file.seek(at)
        (form,) = struct.unpack("<H", file.read(2))
        _write_at(file.fileno(), at + 4, struct.pack("<H", 0o040000 | root.mode))
        if form & 1:
            seconds = int(root.mtime) & 0xFFFFFFFFFFFFFFFF
            _write_at(file.fileno(), at + 24, struct.pack("<IIQI", root.uid, root.gid, seconds, 0))
        else:
            _write_at(file.fileno(), at + 24, struct.pack("<HH", root.uid & 0xFFFF, root.gid & 0xFFFF))


def _write_at(descriptor: int, at: int, content: bytes) -> None:
    os.pwrite(descriptor, content, at)


def flat_disk(index: Path, index_path: Path, layers: Sequence[Path]) -> str:
    """The description (VMDK, ``twoGbMaxExtentFlat``) of the disk that joins an index and its layers.

    ``index_path`` is where the index will be when the disk is opened. QEMU reads each file in place.

    :raises DiskError: the index was made for another number of layers, or QEMU could not read a path.
    """
    block, slots = devices(index)
    if len(slots) != len(layers):
        raise DiskError(f"{index} joins {len(slots)} layers, not {len(layers)}")
    extents: list[str] = []
    position = 0

    def add(path: Path, size: int) -> None:
        nonlocal position
        if '"' in str(path) or len(os.fsencode(path)) > _LONGEST_EXTENT:
            raise DiskError(
                f"QEMU cannot be told to read {path}: its name is too long or has a quotation mark",
                resolution="set XDG_CACHE_HOME to a folder with another name",
            )
        extents.append(f'RW {size // _SECTOR} FLAT "{path}" 0')
        position += size

    def pad(until: int) -> None:
        nonlocal position
        if until > position:
            extents.append(f"RW {(until - position) // _SECTOR} ZERO")
            position = until

    add(index_path, index.stat().st_size // _SECTOR * _SECTOR)
    for (blocks, start), layer in zip(slots, layers, strict=True):
        pad(start * block)
        add(layer, min(blocks * block, layer.stat().st_size // _SECTOR * _SECTOR))
        pad((start + blocks) * block)
    # QEMU counts the first extent twice where an empty line precedes it.
    head = ["# Disk DescriptorFile", "version=1", "CID=fffffffe", "parentCID=ffffffff"]
    head += ['createType="twoGbMaxExtentFlat"', "# Extent description"]
    tail = ['ddb.virtualHWVersion = "4"', f'ddb.geometry.cylinders = "{max(1, position // _SECTOR // 1008)}"']
    tail += ['ddb.geometry.heads = "16"', 'ddb.geometry.sectors = "63"', 'ddb.adapterType = "ide"']
    return "\n".join([*head, *extents, *tail]) + "\n"
