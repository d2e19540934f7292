"""Kernels made for the purpose: real compressors fill a bzImage, a PE file carries it."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_bootc.disk.kernel import (
    find_kernel,
    has_pvh_entry,
    isa_level,
    pe_sections,
    release_number,
    uncompressed,
)
from pytest_bootc.disk.tree import Tree
from pytest_bootc.errors import Blame, ImageError

TreeOf = Callable[..., Tree]
MODULES = "usr/lib/modules"
RELEASE = "6.12.0-test"


def note(owner: bytes, kind: int, content: bytes) -> bytes:
    def aligned(part: bytes) -> bytes:
        return part + bytes(-len(part) % 4)

    return struct.pack("<III", len(owner), len(content), kind) + aligned(owner) + aligned(content)


BUILD_ID = note(b"GNU\0", 3, bytes(20))
PVH = note(b"Xen\0", 18, struct.pack("<Q", 0x1000000))


def elf(*notes: bytes) -> bytes:
    """A 64-bit ELF file with an empty segment and one of notes."""
    content = b"".join(notes)
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    segments = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 0, 0, 4096)
    segments += struct.pack("<IIQQQQQQ", 4, 4, 176, 0, 0, len(content), len(content), 4)
    return head + segments + content


def packed(command: str, content: bytes, *, size_behind: bool = True) -> bytes:
    done = subprocess.run(command.split(), input=content, capture_output=True, check=True, timeout=20)
    return done.stdout + (struct.pack("<I", len(content)) if size_behind else b"")


def bzimage(payload: bytes, *, sectors: int = 3, version: int = 0x20F) -> bytes:
    """A kernel as Documentation/arch/x86/boot.rst describes it, with code before and behind its payload."""
    code = b"\x90" * 777
    image = bytearray(((sectors or 4) + 1) * 512) + code + payload + code
    image[0x1F1] = sectors
    struct.pack_into("<4sH", image, 0x202, b"HdrS", version)
    struct.pack_into("<II", image, 0x248, len(code), len(payload))
    return bytes(image)


def pe(*sections: tuple[str, bytes]) -> bytes:
    """A PE file with these sections, each padded to 512 bytes."""
    table, body = b"", b""
    at = 0x200 + 0x200 * (len(sections) // 6)
    for name, content in sections:
        raw = content + bytes(-len(content) % 512)
        table += struct.pack("<8sIIII16x", name.encode(), len(content), 0x1000, len(raw), at + len(body))
        body += raw
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x80)
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, len(sections), 0, 0, 0, 0x70, 0)
    return (head.ljust(0x80, b"\0") + coff + bytes(0x70) + table).ljust(at, b"\0") + body


KERNEL = bzimage(packed("zstd -q", elf(PVH)))


# gzip has the size in its own trailer; the build appends it to the others (scripts/Makefile.lib, size_append).
@pytest.mark.parametrize(
    ("command", "size_behind"),
    [
        ("gzip -n -9", False),
        ("xz --check=crc32 --x86 --lzma2=dict=1MiB", True),
        ("zstd -q -19", True),
        ("xz --format=lzma -9", True),
    ],
    ids=["gzip", "xz", "zstd", "lzma"],
)
@pytest.mark.parametrize("sectors", [0, 1, 39])
def test_the_payload_is_unpacked(command: str, size_behind: bool, sectors: int) -> None:  # noqa: FBT001
    content = elf(BUILD_ID, PVH) + b"relocations" * 1000
    image = bzimage(packed(command, content, size_behind=size_behind), sectors=sectors)
    assert uncompressed(image) == content


@pytest.mark.parametrize(
    "image",
    [
        bzimage(b"\x02\x21\x4c\x18" + bytes(40)),
        bzimage(packed("bzip2", elf(PVH))),
        bzimage(packed("xz", elf(PVH))[:-12]),
        bzimage(packed("gzip", b"no ELF file")),
        bzimage(packed("zstd -q", elf(PVH)), version=0x207),
        KERNEL[:0x24C],
        KERNEL[:0x400],
        bzimage(b""),
    ],
    ids=["lz4", "bzip2", "cut off", "no ELF", "old protocol", "short header", "no payload", "empty"],
)
def test_what_is_not_read_has_no_short_way(image: bytes, tree_of: TreeOf) -> None:
    assert uncompressed(image) is None
    kernel = find_kernel(tree_of({f"{MODULES}/{RELEASE}/vmlinuz": image}))
    assert (kernel.image, kernel.pvh) == (image, None)


@pytest.mark.parametrize(
    ("content", "has"),
    [
        (elf(PVH), True),
        (elf(BUILD_ID, note(b"Xen\0", 6, b"linux\0"), PVH), True),
        (elf(BUILD_ID), False),
        (elf(note(b"Xen\0", 6, b"linux\0")), False),
        (elf(note(b"GNU\0", 18, bytes(8))), False),
        (elf(), False),
        (elf(PVH)[:4] + b"\1" + elf(PVH)[5:], False),
        (elf(note(b"12345", 1, b"123"), PVH), True),
        (elf(PVH).replace(b"\4\0\0\0\4\0\0\0", b"\1\0\0\0\4\0\0\0"), False),
        (elf(PVH)[:50], False),
        (elf(PVH)[:130], False),
        (b"\x7fELF", False),
        (b"", False),
    ],
)
def test_the_entry_is_found_by_its_note(content: bytes, has: bool) -> None:  # noqa: FBT001
    assert has_pvh_entry(content) is has


def test_a_program_of_this_machine_has_no_such_entry() -> None:
    assert not has_pvh_entry(Path(sys.executable).resolve().read_bytes())


def test_binutils_agree_about_the_note(tmp_path: Path) -> None:
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("readelf is not installed")
    (tmp_path / "vmlinux").write_bytes(elf(BUILD_ID, PVH))
    shown = subprocess.run([readelf, "-n", tmp_path / "vmlinux"], capture_output=True, check=True).stdout.decode()
    assert "Xen" in shown
    assert "(0x00000012)" in shown


def test_the_kernel_is_that_of_the_module_folder(tree_of: TreeOf) -> None:
    tree = tree_of(
        {
            f"{MODULES}/{RELEASE}/vmlinuz": KERNEL,
            f"{MODULES}/5.0.0-leftover/modules.dep": b"",
            "boot/EFI/Linux/other.efi": pe((".linux", KERNEL)),
        }
    )
    kernel = find_kernel(tree)
    assert (kernel.release, kernel.path) == (RELEASE, f"{MODULES}/{RELEASE}/vmlinuz")
    assert (kernel.image, kernel.pvh, kernel.arguments) == (KERNEL, elf(PVH), "")


def test_a_kernel_without_the_entry_boots_as_it_is(tree_of: TreeOf) -> None:
    image = bzimage(packed("zstd -q", elf(BUILD_ID)))
    assert find_kernel(tree_of({f"{MODULES}/{RELEASE}/vmlinuz": image})).pvh is None


@pytest.mark.parametrize("place", ["boot/EFI/Linux", f"{MODULES}/{RELEASE}"])
def test_a_unified_kernel_image_has_its_parts_in_sections(tree_of: TreeOf, place: str) -> None:
    image = pe(
        (".sdmagic", b"#### LoaderInfo"),
        (".osrel", b"ID=test"),
        (".cmdline", b"root=x quiet\n\0"),
        (".uname", f"{RELEASE}\n".encode()),
        (".linux", KERNEL),
        (".profile", b"TITLE=other"),
        (".cmdline", b"of another profile"),
    )
    kernel = find_kernel(tree_of({f"{place}/linux.efi": image}))
    assert (kernel.release, kernel.path) == (RELEASE, f"{place}/linux.efi")
    assert (kernel.image, kernel.pvh, kernel.arguments) == (KERNEL, elf(PVH), "root=x quiet")


@pytest.mark.parametrize("place", ["boot/EFI/Linux", f"{MODULES}/{RELEASE}"])
def test_a_unified_kernel_image_without_a_release_has_that_of_the_modules(tree_of: TreeOf, place: str) -> None:
    tree = tree_of({f"{place}/linux.efi": pe((".linux", KERNEL)), f"{MODULES}/{RELEASE}/modules.dep": b""})
    assert find_kernel(tree).release == RELEASE


def refusal(tree: Tree) -> ImageError:
    with pytest.raises(ImageError) as caught:
        find_kernel(tree)
    assert caught.value.blame is Blame.IMAGE
    assert caught.value.resolution
    return caught.value


def test_no_kernel(tree_of: TreeOf) -> None:
    error = refusal(tree_of({f"{MODULES}/{RELEASE}/modules.dep": b"", "boot/vmlinuz": KERNEL}))
    assert error.brief == "the image has no kernel"
    assert "/usr/lib/modules/*/vmlinuz" in error.details


@pytest.mark.parametrize(
    "paths",
    [
        [f"{MODULES}/6.1/vmlinuz", f"{MODULES}/6.12/vmlinuz"],
        ["boot/EFI/Linux/a.efi", "boot/EFI/Linux/b.efi"],
        ["boot/EFI/Linux/a.efi", f"{MODULES}/6.1/b.efi"],
    ],
)
def test_two_kernels_are_both_named(tree_of: TreeOf, paths: list[str]) -> None:
    content = KERNEL if paths[0].endswith("vmlinuz") else pe((".linux", KERNEL))
    error = refusal(tree_of(dict.fromkeys(paths, content)))
    assert error.brief == "the image has 2 kernels, and it cannot be told which one is to boot"
    assert error.details.splitlines() == [f"/{path}" for path in paths]


def test_a_unified_kernel_image_needs_one_set_of_modules(tree_of: TreeOf) -> None:
    image = {"boot/EFI/Linux/linux.efi": pe((".linux", KERNEL))}
    assert refusal(tree_of(image)).brief == "the image has no modules for the kernel /boot/EFI/Linux/linux.efi"
    error = refusal(tree_of({**image, f"{MODULES}/6.1/x": b"", f"{MODULES}/6.12/x": b""}))
    assert error.details.splitlines() == ["/usr/lib/modules/6.1", "/usr/lib/modules/6.12"]


@pytest.mark.parametrize("content", [b"", b"MZ" + bytes(4000), KERNEL[:0x204], pe((".linux", KERNEL))])
def test_another_kind_of_kernel(tree_of: TreeOf, content: bytes) -> None:
    error = refusal(tree_of({f"{MODULES}/{RELEASE}/vmlinuz": content}))
    assert error.brief == (
        f"/{MODULES}/{RELEASE}/vmlinuz is no kernel that this machine can boot: it is no x86 bzImage"
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"MZ",
        pe((".text", b"x")),
        pe((".linux", KERNEL))[:0x88],
        pe((".linux", KERNEL))[:0x98],
        pe((".linux", KERNEL))[:0x10C],
    ],
)
def test_a_file_that_is_no_unified_kernel_image(tree_of: TreeOf, content: bytes) -> None:
    error = refusal(tree_of({"boot/EFI/Linux/linux.efi": content}))
    assert error.brief == "/boot/EFI/Linux/linux.efi is no unified kernel image: it has no .linux section"


def test_sections_have_their_own_length(tmp_path: Path) -> None:
    sections = [(".a", b"1"), (".eight..", b"2" * 700), (".c", b"")]
    assert list(pe_sections(pe(*sections))) == sections


@pytest.mark.parametrize(
    ("release", "number"),
    [("6.12.48-1.el10.x86_64", (6, 12)), ("6.4", (6, 4)), ("10.0.1", (10, 0)), ("next-2026", (0, 0)), ("", (0, 0))],
)
def test_the_number_of_a_release(release: str, number: tuple[int, int]) -> None:
    assert release_number(release) == number


def property_note(bits: int) -> bytes:
    needed = struct.pack("<IIII", 0xC0008002, 4, bits, 0)
    used = struct.pack("<IIII", 0xC0010002, 4, 0xF, 0)
    return note(b"GNU\0", 5, needed + used)


@pytest.mark.parametrize(
    ("bits", "level"),
    [(0b1, "x86-64-v1"), (0b11, "x86-64-v2"), (0b111, "x86-64-v3"), (0b1111, "x86-64-v4")],
)
@pytest.mark.parametrize("path", ["usr/lib64/ld-linux-x86-64.so.2", "usr/lib64/libc.so.6"])
def test_the_level_is_what_the_c_library_needs(tree_of: TreeOf, path: str, bits: int, level: str) -> None:
    assert isa_level(tree_of({path: elf(BUILD_ID, property_note(bits))})) == level


def test_the_level_is_found_through_links(tree_of: TreeOf) -> None:
    tree = tree_of(
        {
            "lib64": "usr/lib64",
            "usr/lib64/ld-linux-x86-64.so.2": "../lib/x86_64-linux-gnu/ld.so",
            "usr/lib/x86_64-linux-gnu/ld.so": elf(property_note(0b111)),
        }
    )
    assert isa_level(tree) == "x86-64-v3"


def test_without_a_note_the_lowest_level_does(tree_of: TreeOf) -> None:
    assert isa_level(tree_of({"usr/lib64/libc.so.6": elf(BUILD_ID)})) == "x86-64-v1"
    assert isa_level(tree_of({"usr/lib64/libc.so.6": elf(property_note(3))[: 176 + 24]})) == "x86-64-v1"
    assert isa_level(tree_of({"etc/hosts": b""})) == "x86-64-v1"


@pytest.mark.parametrize("level", ["x86-64-v2", "x86-64-v3"])
def test_the_level_of_what_a_compiler_makes(tree_of: TreeOf, tmp_path: Path, level: str) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed")
    (tmp_path / "x.c").write_text("int x;\n")
    library = tmp_path / "x.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", f"-march={level}", "-mneeded", "-o", library, tmp_path / "x.c"], check=True
    )
    assert isa_level(tree_of({"usr/lib64/libc.so.6": library.read_bytes()})) == level
