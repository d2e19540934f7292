"""Finding the kernel of an image, and giving it the form that boots fastest.

Formats: bzImage (Documentation/arch/x86/boot.rst), PE with the sections of a unified kernel image (UAPI group,
"Unified Kernel Image"), ELF with a PVH entry note (XEN_ELFNOTE_PHYS32_ENTRY, Xen's docs/misc/pvh.pandoc).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_bootc.disk.packed import PackedError, unpack
from pytest_bootc.disk.tree import Tree
from pytest_bootc.errors import ImageError

_MODULES = "usr/lib/modules"
_BOOT_MAGIC, _BOOT_VERSION = 0x202, 0x206
_SETUP_SECTORS, _PAYLOAD, _SETUP_END = 0x1F1, 0x248, 0x250
_TELLS_PAYLOAD = 0x208  # the first version of the boot protocol that says where the payload is
_ELF64, _PROGRAM_HEADER = b"\2", 56
_PT_NOTE, _PHYS32_ENTRY = 4, 18


@dataclass(frozen=True)
class Kernel:
    """A kernel: its release, the path it has in the image, the bzImage, and the uncompressed ELF if it has a PVH entry.

    ``arguments`` are those that a unified kernel image carries, else empty.
    """

    release: str
    path: str
    image: bytes
    pvh: bytes | None
    arguments: str = ""


def find_kernel(tree: Tree) -> Kernel:
    """The image's one kernel: the vmlinuz of a module folder, else a unified kernel image.

    :raises ImageError: there is none, there are two, or it is no x86 kernel.
    """
    plain = [f"{_MODULES}/{r}/vmlinuz" for r in tree.names(_MODULES) if tree.is_file(f"{_MODULES}/{r}/vmlinuz")]
    if plain:
        path = _only(plain)
        return _kernel(path.split("/")[-2], path, tree.read(path))
    unified = [f"boot/EFI/Linux/{n}" for n in tree.names("boot/EFI/Linux") if n.endswith(".efi")]
    for release in tree.names(_MODULES):
        unified += [f"{_MODULES}/{release}/{n}" for n in tree.names(f"{_MODULES}/{release}") if n.endswith(".efi")]
    if not unified:
        raise ImageError(
            "the image has no kernel",
            details=f"looked for /{_MODULES}/*/vmlinuz, /boot/EFI/Linux/*.efi and /{_MODULES}/*/*.efi",
            resolution="install a kernel in the image; bootc images keep it in /usr/lib/modules/RELEASE/vmlinuz",
        )
    return _unified(_only(unified), tree)


def _only(paths: list[str]) -> str:
    if len(paths) > 1:
        raise ImageError(
            f"the image has {len(paths)} kernels, and it cannot be told which one is to boot",
            details="\n".join(f"/{path}" for path in paths),
            resolution="remove all but one from the image, as bootc itself demands (`bootc container lint`)",
        )
    return paths[0]


def _unified(path: str, tree: Tree) -> Kernel:
    sections: dict[str, bytes] = {}
    for name, content in pe_sections(tree.read(path)):
        sections.setdefault(name, content)  # the first are of the main profile
    if ".linux" not in sections:
        raise ImageError(
            f"/{path} is no unified kernel image: it has no .linux section",
            resolution="build it again, for instance with ukify(1)",
        )
    arguments = sections.get(".cmdline", b"").rstrip(b"\0\n ").decode(errors="replace")
    release = sections.get(".uname", b"").rstrip(b"\0\n ").decode(errors="replace")
    return _kernel(release or _release(path, tree), path, sections[".linux"], arguments)


def _release(path: str, tree: Tree) -> str:
    """Of a unified kernel image that does not tell its release: the one that the image has modules for."""
    if path.startswith(_MODULES):
        return path.split("/")[-2]
    folders = [f"{_MODULES}/{name}" for name in tree.names(_MODULES)]
    if not folders:
        raise ImageError(
            f"the image has no modules for the kernel /{path}",
            details=f"looked for /{_MODULES}/*",
            resolution="install the kernel's modules in the image: a machine needs some of them to find its root",
        )
    return _only(folders).rpartition("/")[2]


def _kernel(release: str, path: str, image: bytes, arguments: str = "") -> Kernel:
    if image[_BOOT_MAGIC : _BOOT_MAGIC + 4] != b"HdrS":
        raise ImageError(
            f"/{path} is no kernel that this machine can boot: it is no x86 bzImage",
            resolution="was the image made for another architecture?",
        )
    elf = uncompressed(image)
    return Kernel(release, path, image, elf if elf is not None and has_pvh_entry(elf) else None, arguments)


def pe_sections(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and content of each section of a PE file; none where it is no PE file, or not a whole one."""
    if content[:2] != b"MZ" or len(content) < 0x40:
        return
    (start,) = struct.unpack_from("<I", content, 0x3C)
    if content[start : start + 4] != b"PE\0\0" or len(content) < start + 24:
        return
    count, optional = struct.unpack_from("<H12xH", content, start + 6)
    table = start + 24 + optional
    for at in range(table, min(table + 40 * count, len(content) - 39), 40):
        name, size, _, raw_size, offset = struct.unpack_from("<8sIIII", content, at)
        yield name.rstrip(b"\0").decode(errors="replace"), content[offset : offset + min(size, raw_size)]


def uncompressed(image: bytes) -> bytes | None:
    """The ELF file inside a bzImage; ``None`` where it is packed in a way that is not read here (lz4, lzo, bzip2)."""
    if len(image) < _SETUP_END or struct.unpack_from("<H", image, _BOOT_VERSION)[0] < _TELLS_PAYLOAD:
        return None
    start = ((image[_SETUP_SECTORS] or 4) + 1) * 512
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    try:
        # All but gzip have four bytes of the unpacked size behind the stream; behind the ELF file come relocations.
        elf = unpack(image[start + offset : start + offset + length])
    except PackedError:
        return None
    return elf if elf[:4] == b"\x7fELF" else None


def has_pvh_entry(elf: bytes) -> bool:
    """Whether a 64-bit ELF file has the note by which QEMU boots it directly."""
    if elf[4:5] != _ELF64 or len(elf) < 64:
        return False
    (table,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    for at in range(table, min(table + size * count, len(elf) - _PROGRAM_HEADER + 1), size or 1):
        kind, offset, length = struct.unpack_from("<I4xQ16xQ", elf, at)
        if kind == _PT_NOTE and _PHYS32_ENTRY in _note_types(elf[offset : offset + length], b"Xen\0"):
            return True
    return False


def _note_types(notes: bytes, owner: bytes) -> Iterator[int]:
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        if notes[at + 12 : at + 12 + name_size] == owner:
            yield kind
        at += 12 + (name_size + 3) // 4 * 4 + (size + 3) // 4 * 4


def release_number(release: str) -> tuple[int, int]:
    """Major and minor of a kernel release such as ``6.12.48-1.el10``; zeros where it has none."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


# glibc marks itself with the x86-64 level that it was built for (x86-64 psABI, GNU_PROPERTY_X86_ISA_1_NEEDED). What
# is not needed is left out: in emulation the string functions for AVX cost a fifth of the whole boot.
_ISA_NEEDED = struct.pack("<II", 0xC0008002, 4)
_LOADERS = ("usr/lib64/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2", "usr/lib64/libc.so.6")
_LEVELS = ((8, "x86-64-v4"), (4, "x86-64-v3"), (2, "x86-64-v2"))


def isa_level(tree: Tree) -> str:
    """The x86-64 level that the image's C library says it needs: ``x86-64-v1`` to ``x86-64-v4``."""
    needed = 0
    for path in _LOADERS:
        if tree.is_file(path):
            content = tree.read(path)
            at = content.find(_ISA_NEEDED)
            needed |= struct.unpack_from("<I", content, at + 8)[0] if 0 <= at <= len(content) - 12 else 0
    return next((level for bit, level in _LEVELS if needed & bit), "x86-64-v1")
