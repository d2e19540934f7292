#!/usr/bin/env python3
"""Build a disk that boots by its own bootloader: `python tests/images/disk.py bios|uefi|iso`; its path is printed.

All three hold the server image's files on ext4, its kernel and a small initramfs: `bios` (SYSLINUX in a FAT partition
of an MBR disk), `uefi` (systemd-boot in the EFI system partition of a GPT disk) and `iso` (ISOLINUX; the file system is
a file on the CD, under a tmpfs). Made without root and without mounts, and kept in the user's cache like the images.
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import build

from pytest_bootc import cpio
from pytest_bootc.cache import Cache, default_home
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.ext4 import Ext4, make_ext4
from pytest_bootc.disk.kernel import find_kernel
from pytest_bootc.disk.layers import LayerStore
from pytest_bootc.disk.modules import KernelModules
from pytest_bootc.disk.tar import scan
from pytest_bootc.disk.tree import Tree
from pytest_bootc.image import ImageReference
from pytest_bootc.progress import Silent
from pytest_bootc.source import source_for

MIB = 1 << 20
FAT_MIB, FREE_MIB = 64, 256
SECTOR = 512
ARGUMENTS = "console=ttyS0 quiet"
SYSLINUX = Path("/usr/lib/SYSLINUX/mbr.bin"), Path("/usr/share/syslinux/mbr.bin")
ISOLINUX = Path("/usr/lib/ISOLINUX/isolinux.bin"), Path("/usr/share/syslinux/isolinux.bin")
LDLINUX = Path("/usr/lib/syslinux/modules/bios/ldlinux.c32"), Path("/usr/share/syslinux/ldlinux.c32")
SYSTEMD_BOOT = (Path("/usr/lib/systemd/boot/efi/systemd-bootx64.efi"),)
CONFIGURATION = f"DEFAULT server\nLABEL server\n  LINUX vmlinuz\n  INITRD initramfs\n  APPEND {ARGUMENTS}\n"
ENTRY = f"title server\nlinux /vmlinuz\ninitrd /initramfs\noptions {ARGUMENTS}\n"

MODULES = ("virtio_pci", "virtio_blk", "ext4")
ISO_MODULES = ("virtio_pci", "ahci", "sr_mod", "isofs", "loop", "overlay", "ext4")
APPLETS = ("sh", "insmod", "mkdir", "mount", "sleep", "switch_root", "umount")
START = """\
#!/bin/sh
export PATH=/bin
mount -t devtmpfs devtmpfs /dev
mount -t sysfs sysfs /sys
mount -t proc proc /proc
for module in /modules/*; do insmod "$module"; done
tries=300
until {mount}; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || exit 1
    sleep 0.1
done
{then}
umount /proc /sys
mount -o move /dev /new/dev
exec switch_root /new /sbin/init
"""
DISK_START = START.format(mount="mount -t ext4 /dev/vda2 /new 2>/dev/null", then=":")
ISO_START = START.format(
    mount="mount -t iso9660 -o ro /dev/sr0 /cd 2>/dev/null",
    then="""\
mount -t ext4 -o ro,loop /cd/root.ext4 /lower
mount -t tmpfs tmpfs /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work overlay /new""",
)


class Server:
    """What the disks take from the server image."""

    def __init__(self) -> None:
        deadline = Deadline.after(600)
        reference = ImageReference.parse(f"oci:{build.ensure('server')}:latest")
        source = source_for(reference)
        image = source.resolve(reference, deadline)
        stored = LayerStore(Cache(default_home())).obtain(image, source, deadline, Silent())
        self.tree = Tree([layer.path for layer in stored])
        for layer in stored:
            self.tree.apply(scan(layer.path))
        self.kernel = find_kernel(self.tree)

    def initramfs(self, start: str, modules: Sequence[str]) -> bytes:
        """An archive of busybox, the modules in the order of their loading, and the script that mounts the root."""
        folders = ("bin", "dev", "sys", "proc", "modules", "new", "cd", "lower", "rw")
        there = KernelModules(self.tree, self.kernel.release)
        loaded = enumerate(there.load_order(modules))
        archive = cpio.archive(
            [
                *(cpio.folder(name) for name in folders),
                cpio.character_device("dev/console", 5, 1),
                cpio.file("bin/busybox", self.tree.read("usr/bin/busybox"), 0o755),
                *(cpio.link(f"bin/{applet}", "busybox") for applet in APPLETS),
                cpio.file("init", start.encode(), 0o755),
                *(cpio.file(f"modules/{number:02}-{name}.ko", there.read(name)) for number, name in loaded),
            ]
        )
        return lzma.compress(archive, check=lzma.CHECK_CRC32)

    def root(self, image: Path) -> None:
        """Write an ext4 file system with all files, and some room."""
        used = sum(node.entry.size + 4096 for _, node in self.tree.below("")) // MIB
        losses = make_ext4(self.tree, "", image, Ext4("root", used + FREE_MIB, 8), Deadline.after(600))
        if losses:
            raise RuntimeError(f"the disk would lack some of the image: {losses}")


def build_bios(server: Server, target: Path) -> None:
    """SYSLINUX in the first partition of an MBR disk."""
    fat = _fat(
        target,
        {
            "vmlinuz": server.kernel.image,
            "initramfs": server.initramfs(DISK_START, MODULES),
            "syslinux.cfg": CONFIGURATION.encode(),
        },
    )
    _call("syslinux", "--install", fat)
    _join(server, target, fat, "label: dos\nsize={fat}MiB, type=c, bootable\ntype=83\n")
    with target.open("r+b") as disk:
        disk.write(_first(SYSLINUX).read_bytes()[:440])


def build_uefi(server: Server, target: Path) -> None:
    """systemd-boot in the EFI system partition of a GPT disk."""
    fat = _fat(
        target,
        {
            "vmlinuz": server.kernel.image,
            "initramfs": server.initramfs(DISK_START, MODULES),
            "EFI/BOOT/BOOTX64.EFI": _first(SYSTEMD_BOOT).read_bytes(),
            "loader/entries/server.conf": ENTRY.encode(),
        },
    )
    _join(server, target, fat, "label: gpt\nsize={fat}MiB, type=U\ntype=L\n")


def build_iso(server: Server, target: Path) -> None:
    """An ISO with ISOLINUX and the file system as a file."""
    folder = target.with_name("iso")
    folder.mkdir()
    server.root(folder / "root.ext4")
    content = {
        "vmlinuz": server.kernel.image,
        "initramfs": server.initramfs(ISO_START, ISO_MODULES),
        "isolinux.bin": _first(ISOLINUX).read_bytes(),
        "ldlinux.c32": _first(LDLINUX).read_bytes(),
        "isolinux.cfg": CONFIGURATION.encode(),
    }
    for name, data in content.items():
        (folder / name).write_bytes(data)
    boot = ("-b", "isolinux.bin", "-c", "boot.cat", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table")
    _call("xorriso", "-as", "mkisofs", "-quiet", "-R", "-V", "server", *boot, "-o", target, folder)


BUILDERS = {"bios": build_bios, "uefi": build_uefi, "iso": build_iso}


def _fat(target: Path, content: Mapping[str, bytes]) -> Path:
    """A FAT file system with these files, beside the disk that it is for."""
    fat = target.with_name("fat")
    _call("mformat", "-C", "-i", fat, "-T", str(FAT_MIB * MIB // SECTOR), "-h", "64", "-s", "32", "::")
    folders = sorted({str(parent) for name in content for parent in Path(name).parents if parent != Path()})
    for folder in folders:
        _call("mmd", "-i", fat, f"::{folder}")
    for name, data in content.items():
        _call("mcopy", "-i", fat, "-", f"::{name}", stdin=data)
    return fat


def _join(server: Server, target: Path, fat: Path, table: str) -> None:
    """A disk with a table of two partitions: the FAT file system, and the server's root in what is left."""
    root = target.with_name("root.ext4")
    server.root(root)
    with target.open("wb") as disk:
        disk.truncate((1 + FAT_MIB + 1) * MIB + root.stat().st_size)
    _call("sfdisk", "--quiet", target, stdin=table.format(fat=FAT_MIB).encode())
    _copy(fat, target, 1 * MIB)
    _copy(root, target, (1 + FAT_MIB) * MIB)


def _copy(source: Path, disk: Path, offset: int) -> None:
    """Copy a file into a disk, and leave its holes out."""
    with source.open("rb") as file, disk.open("r+b") as out:
        size = source.stat().st_size
        end = 0
        while end < size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:  # no data from here on
                return
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            file.seek(start)
            out.seek(offset + start)
            while start < end:
                chunk = file.read(min(MIB, end - start))
                out.write(chunk)
                start += len(chunk)


def _first(candidates: Sequence[Path]) -> Path:
    """The file where Debian has it, else where Fedora has it."""
    for path in candidates:
        if path.is_file():
            return path
    raise FileNotFoundError(f"none of {', '.join(map(str, candidates))} is installed: run scripts/setup")


def _call(*command: str | Path, stdin: bytes = b"") -> None:
    # mtools would compare geometries with those of real floppies.
    environment = {**os.environ, "MTOOLS_SKIP_CHECK": "1", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    subprocess.run([*command], check=True, input=stdin, stdout=subprocess.DEVNULL, env=environment)


def ensure(kind: str) -> Path:
    """The cached disk of a kind, built first when these sources have not built it yet."""
    server = build.ensure("server")
    key = hashlib.sha256(f"{server.name}".encode() + Path(__file__).read_bytes()).hexdigest()[:16]

    def make(folder: Path) -> None:
        folder.mkdir()
        scratch = folder / "scratch"
        scratch.mkdir()
        BUILDERS[kind](Server(), scratch / "disk")
        (scratch / "disk").rename(folder / "disk")
        shutil.rmtree(scratch)

    return build.cached(f"disk-{kind}", key, make) / "disk"


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description="Build a disk that boots by its own bootloader.")
    parser.add_argument("kind", choices=sorted(BUILDERS))
    print(ensure(parser.parse_args().kind))


if __name__ == "__main__":
    main()
