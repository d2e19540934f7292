#!/usr/bin/env python3
"""Build a disk that boots by its own bootloader: `python tests/images/disk.py KIND`; its path is printed.

They hold an image's files on ext4, its kernel and a small initramfs. Of the server image are `bios` (SYSLINUX in a FAT
partition of an MBR disk), `uefi` (systemd-boot in the EFI system partition of a GPT disk) and `iso` (ISOLINUX; the file
system is a file on the CD, under a tmpfs). `flatcar`, of the image of that name, has the partitions of Flatcar, and its
initramfs runs Ignition at the first boot. Made without root and without mounts, and kept in the user's cache like the
images.
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import build
import flatcar

from pytest_bootc import cpio
from pytest_bootc.cache import Cache, default_home
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.ext4 import Ext4, make_ext4
from pytest_bootc.disk.kernel import find_kernel
from pytest_bootc.disk.layers import LayerStore
from pytest_bootc.disk.modules import KernelModules
from pytest_bootc.disk.tar import EntryKind, scan
from pytest_bootc.disk.tree import Tree, implied_folder
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
ENTRY = f"title server\nlinux /vmlinuz\ninitrd /initramfs\noptions {ARGUMENTS}"

MODULES = ("virtio_pci", "virtio_blk", "ext4")
FLATCAR_MODULES = (*MODULES, "vfat", "nls_cp437", "nls_ascii")
ISO_MODULES = ("virtio_pci", "ahci", "sr_mod", "isofs", "loop", "overlay", "ext4")
APPLETS = ("cat", "chroot", "insmod", "mkdir", "mount", "rm", "sh", "sleep", "switch_root", "umount")
START = """\
#!/bin/sh
export PATH=/bin:/sbin
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
# A chroot has the programs that Ignition runs, and the disk once more: setfiles(8) labels below another root only.
FLATCAR_START = START.format(
    mount="mount -t ext4 /dev/vda5 /new 2>/dev/null",
    then=f"""\
mount -t vfat /dev/vda1 /new/boot
mount -t ext4 -o ro /dev/vda2 /new/usr
mount -t ext4 /dev/vda4 /new/oem
if [ -e /new/{flatcar.FIRST_BOOT} ]; then
    mount -o rbind /new /new/sysroot
    mount -o bind /dev /new/dev
    mount -t proc proc /new/proc
    mount -t tmpfs tmpfs /new/run
    for stage in fetch disks mount files; do
        IGNITION_CONFIG_FILE=/{flatcar.CONFIG} chroot /new {flatcar.IGNITION} --platform=file --stage=$stage \\
            --root=/sysroot --config-cache=/run/ignition.json --log-to-stdout >/new/run/log 2>&1 ||
            {{ cat /new/run/log; echo "Ignition failed in its stage $stage"; exit 1; }}
    done
    umount /new/run /new/proc /new/dev
    umount -l /new/sysroot
    rm /new/{flatcar.FIRST_BOOT}
fi
umount /new/oem /new/boot""",
)
ISO_START = START.format(
    mount="mount -t iso9660 -o ro /dev/sr0 /cd 2>/dev/null",
    then="""\
mount -t ext4 -o ro,loop /cd/root.ext4 /lower
mount -t tmpfs tmpfs /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work overlay /new""",
)


class Content:
    """What the disks take from an image."""

    def __init__(self, image: str) -> None:
        deadline = Deadline.after(600)
        reference = ImageReference.parse(f"oci:{build.ensure(image)}:latest")
        source = source_for(reference)
        resolved = source.resolve(reference, deadline)
        stored = LayerStore(Cache(default_home())).obtain(resolved, source, deadline, Silent())
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

    def ext4(self, image: Path, label: str = "root", folder: str = "") -> Path:
        """Write an ext4 file system with all files of a folder, and some room."""
        used = sum(node.entry.size + 4096 for _, node in self.tree.below(folder)) // MIB
        losses = make_ext4(self.tree, folder, image, Ext4(label, used + FREE_MIB, 8), Deadline.after(600))
        if losses:
            raise RuntimeError(f"the disk would lack some of the image: {losses}")
        return image

    def empty(self, folder: str) -> None:
        """Have a folder without its content."""
        self.tree.apply([implied_folder(folder)._replace(kind=EntryKind.OPAQUE)])


def build_bios(server: Content, target: Path) -> None:
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
    root = server.ext4(target.with_name("root.ext4"))
    _join(target, "dos", [("type=c, bootable", fat), ("type=83", root)])
    with target.open("r+b") as disk:
        disk.write(_first(SYSLINUX).read_bytes()[:440])


def build_uefi(server: Content, target: Path) -> None:
    """systemd-boot in the EFI system partition of a GPT disk."""
    fat = _fat(target, _systemd_boot(server, server.initramfs(DISK_START, MODULES)))
    _join(target, "gpt", [("type=U", fat), ("type=L", server.ext4(target.with_name("root.ext4")))])


def build_flatcar(content: Content, target: Path) -> None:
    """The partitions that Flatcar's disk has and that are no other bootloader's, with its names; USR-B is empty."""
    boot = _systemd_boot(content, content.initramfs(FLATCAR_START, FLATCAR_MODULES), " systemd.firstboot=no")
    fat = _fat(target, {**boot, flatcar.FIRST_BOOT.removeprefix("boot/"): b""}, "EFI-SYSTEM")
    usr, other = content.ext4(target.with_name("usr"), "USR-A", "usr"), target.with_name("other")
    with other.open("wb") as file:
        file.truncate(usr.stat().st_size)
    oem = content.ext4(target.with_name("oem"), "OEM", "oem")
    content.empty("usr")
    content.empty("oem")
    root = content.ext4(target.with_name("root"), "ROOT")
    named = {"USR-A": usr, "USR-B": other, "OEM": oem, "ROOT": root}
    others = [(f'type=L, name="{name}"', path) for name, path in named.items()]
    _join(target, "gpt", [('type=U, name="EFI-SYSTEM"', fat), *others])


def build_iso(server: Content, target: Path) -> None:
    """An ISO with ISOLINUX and the file system as a file."""
    folder = target.with_name("iso")
    folder.mkdir()
    server.ext4(folder / "root.ext4")
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


#: By kind: what builds it, and of which image.
BUILDERS: Mapping[str, tuple[Callable[[Content, Path], None], str]] = {
    "bios": (build_bios, "server"),
    "uefi": (build_uefi, "server"),
    "iso": (build_iso, "server"),
    "flatcar": (build_flatcar, "flatcar"),
}


def _systemd_boot(content: Content, initramfs: bytes, arguments: str = "") -> dict[str, bytes]:
    """What is in an EFI system partition that starts the image's kernel."""
    return {
        "vmlinuz": content.kernel.image,
        "initramfs": initramfs,
        "EFI/BOOT/BOOTX64.EFI": _first(SYSTEMD_BOOT).read_bytes(),
        "loader/entries/server.conf": f"{ENTRY}{arguments}\n".encode(),
    }


def _fat(target: Path, content: Mapping[str, bytes], label: str = "BOOT") -> Path:
    """A FAT file system with these files, beside the disk that it is for."""
    fat = target.with_name("fat")
    size = ("-T", str(FAT_MIB * MIB // SECTOR), "-h", "64", "-s", "32")
    _call("mformat", "-C", "-i", fat, "-v", label, *size, "::")
    folders = sorted({str(parent) for name in content for parent in Path(name).parents if parent != Path()})
    for folder in folders:
        _call("mmd", "-i", fat, f"::{folder}")
    for name, data in content.items():
        _call("mcopy", "-i", fat, "-", f"::{name}", stdin=data)
    return fat


def _join(target: Path, label: str, partitions: Sequence[tuple[str, Path]]) -> None:
    """A disk with a table of partitions of that kind: for each, how sfdisk(8) is told of it, and what is in it."""
    sizes = [-(-path.stat().st_size // MIB) for _, path in partitions]
    with target.open("wb") as disk:
        disk.truncate((1 + sum(sizes) + 1) * MIB)
    lines = [f"size={size}MiB, {said}" for size, (said, _) in zip(sizes, partitions, strict=True)]
    _call("sfdisk", "--quiet", target, stdin="\n".join([f"label: {label}", *lines, ""]).encode())
    for number, (_, path) in enumerate(partitions):
        _copy(path, target, (1 + sum(sizes[:number])) * MIB)


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
    maker, image = BUILDERS[kind]
    key = hashlib.sha256(build.ensure(image).name.encode() + Path(__file__).read_bytes()).hexdigest()[:16]

    def make(folder: Path) -> None:
        folder.mkdir()
        scratch = folder / "scratch"
        scratch.mkdir()
        maker(Content(image), scratch / "disk")
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
