"""Golden disks of images that are small and made up, but complete: real layers, real tools."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import struct
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from pytest_bootc.cache import About, Cache
from pytest_bootc.command import find_program, look_for_program
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk import erofs, live, tar
from pytest_bootc.disk.kernel import find_kernel
from pytest_bootc.disk.live import Workshop, build_live_disk, file_hashes
from pytest_bootc.errors import Blame, BootcTestError, DiskError, ImageError
from pytest_bootc.image import ImageReference
from pytest_bootc.model import LiveDisk, ResolvedImage
from pytest_bootc.progress import Silent
from pytest_bootc.source import source_for

Files = dict[str, Any]
RELEASE = "6.12.0-test"
MODULES = f"usr/lib/modules/{RELEASE}"
MODULE = b"\x7fELF" + b"code of a module"
VIRTIO = "kernel/virtio_pci.ko\nkernel/virtio_blk.ko\nkernel/virtio_console.ko\nkernel/overlay.ko\n"
EVERYTHING = VIRTIO + "kernel/erofs.ko\nkernel/ext4.ko\n"

pytestmark = pytest.mark.skipif(look_for_program("mkfs.erofs") is None, reason="mkfs.erofs is not installed")


def kernel() -> bytes:
    image = bytearray(2048)
    struct.pack_into("<4sH", image, 0x202, b"HdrS", 0x20F)
    return bytes(image)


def unified(*sections: tuple[str, bytes]) -> bytes:
    table, body = b"", b""
    for name, content in sections:
        table += struct.pack("<8sIIII16x", name.encode(), len(content), 0, len(content), 0x200 + len(body))
        body += content
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    return (head + b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, len(sections), 0, 0, 0, 0, 0) + table).ljust(
        0x200, b"\0"
    ) + body


BASE: Files = {
    **dict.fromkeys(("dev", "proc", "sys", "run", "etc", "var", "usr")),
    "home": "var/home",
    "etc/hosts": b"127.0.0.1 localhost\n",
    "etc/ssh": None,
    "var/lib/seed": b"seed",
    "usr/sbin/sshd": b"sshd",
    "usr/lib/systemd/system/sshd.service": b"[Service]\n",
    "usr/lib/bootc/kargs.d/10-x.toml": b'kargs = ["own=1"]',
    f"{MODULES}/vmlinuz": kernel(),
    f"{MODULES}/modules.builtin": EVERYTHING.encode(),
}


def layer(files: Files, **attributes: dict[str, str]) -> bytes:
    """A tar: path to content, link target, or None for a folder; ``attributes`` are PAX records of one path."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, what in files.items():
            info = tarfile.TarInfo(path)
            info.mode = 0o644
            info.pax_headers = attributes.get(path, {})
            if what is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(what, str):
                info.type, info.linkname = tarfile.SYMTYPE, what
            else:
                info.size = len(what)
            tar.addfile(info, io.BytesIO(what) if isinstance(what, bytes) else None)
    return out.getvalue()


class Shop:
    """Builds disks in a cache of its own, and counts which blobs are asked for."""

    def __init__(self, home: Path, oci_layout: Any) -> None:
        self.cache = Cache(home)
        self.fetched: list[str] = []
        self.leases = ExitStack()
        self._layout = oci_layout

    def image(self, *layers: bytes, compression: str = "+gzip", **changes: Any) -> ResolvedImage:
        self._layout.index(self._layout.image(*layers, compression=compression, **changes))
        reference = ImageReference.parse(f"oci:{self._layout.path}")
        return source_for(reference).resolve(reference, Deadline.after(20))

    def build(self, image: ResolvedImage, var_gib: int = 1) -> LiveDisk:
        return build_live_disk(image, _Counting(image, self.fetched), self.workshop(var_gib))

    def workshop(self, var_gib: int = 1) -> Workshop:
        return Workshop(self.cache, Deadline.after(60), Silent(), var_gib, self.leases)

    def leftovers(self) -> list[str]:
        """What is in the cache besides whole layers and disks, once nobody uses those."""
        self.leases.close()
        top = [*self.cache.layers.iterdir(), *self.cache.disks.iterdir(), *(self.cache.home / "locks").iterdir()]
        inside = [path for path in self.cache.layers.glob("*/*") if path.name.startswith(".")]
        return [str(path) for path in [*top, *inside] if path.name.startswith(".") or "locks" in path.parts]


class _Counting:
    remote = False

    def __init__(self, image: ResolvedImage, fetched: list[str]) -> None:
        self._source = source_for(image.reference)
        self._fetched = fetched

    def resolve(self, *arguments: Any) -> ResolvedImage:
        return self._source.resolve(*arguments)

    def opened(self, *arguments: Any) -> AbstractContextManager[ResolvedImage]:
        return self._source.opened(*arguments)

    def open_blob(self, digest: Any, deadline: Deadline, offset: int = 0) -> Iterator[bytes]:
        self._fetched.append(str(digest))
        return self._source.open_blob(digest, deadline, offset)


@pytest.fixture
def shop(tmp_path: Path, oci_layout: Any) -> Iterator[Shop]:
    made = Shop(tmp_path / "cache", oci_layout)
    with made.leases:
        yield made


def debugfs(image: Path, request: str) -> str:
    program = find_program("debugfs", resolution="install e2fsprogs")
    return subprocess.run([program, "-R", request, image], capture_output=True, check=True).stdout.decode()


def extracted(disk: LiveDisk, target: Path) -> dict[str, tuple[str, bytes]]:
    """The root as fsck.erofs reads it: path to mode and content."""
    program = find_program("fsck.erofs", resolution="run scripts/setup")
    devices = [f"--device={path}" for path in disk.layers]
    subprocess.run(
        [program, f"--extract={target}", "--preserve-perms", *devices, disk.folder / "root.erofs"],
        check=True, capture_output=True,
    )  # fmt: skip
    return {
        str(path.relative_to(target)): (f"{path.stat().st_mode & 0o7777:o}", path.read_bytes())
        for path in target.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def folders(target: Path) -> dict[str, str]:
    return {str(path.relative_to(target)): f"{path.stat().st_mode & 0o7777:o}" for path in target.rglob("*/")}


def test_a_disk_has_everything_that_a_machine_needs(shop: Shop, tmp_path: Path) -> None:
    disk = shop.build(shop.image(layer(BASE), layer({"etc/hosts": b"upper\n", "usr/new": b"n"})))
    assert (disk.root.name, disk.root_format, disk.root_type) == ("root.vmdk", "vmdk", "erofs")
    assert extracted(disk, tmp_path / "root")["etc/hosts"] == ("644", b"upper\n")
    assert debugfs(disk.var, "cat /lib/seed") == "seed"
    assert disk.var.stat().st_size == 1 << 30
    assert disk.kernel.read_bytes() == kernel()
    assert (disk.kernel_pvh, disk.kernel_release, disk.kernel_arguments) == (None, RELEASE, ("own=1",))
    assert (disk.isa_level, disk.ssh_units) == ("x86-64-v1", ("sshd.service",))
    assert disk.folders == {"/etc": 0o755, "/etc/ssh": 0o755}
    assert (disk.losses, disk.notes) == ((), ())
    listed = subprocess.run(
        ["cpio", "-t", "--quiet"], input=disk.initramfs.read_bytes(), capture_output=True, check=True
    )
    assert listed.stdout.decode().split() == [
        "dev",
        "modules",
        "new",
        "rw",
        "inject",
        "inject/etc",
        "dev/console",
        "init",
    ]
    assert b"erofs" in disk.initramfs.read_bytes()
    assert file_hashes(disk)["/usr/new"] == "1b16b1df538ba12dc3f97edbb85caa7050d46c148134290feba80f8236c83db9"
    assert shop.leftovers() == []


def test_the_kernel_for_pvh_and_its_modules(shop: Shop) -> None:
    note = struct.pack("<III", 4, 8, 18) + b"Xen\0" + bytes(8)
    elf = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    elf += struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(note), len(note), 4) + note
    elf += bytes(1 << 20) + b"end" + bytes(9000)
    payload = gzip.compress(elf)
    image = bytearray(kernel())
    image[0x1F1] = 3
    struct.pack_into("<II", image, 0x248, 0, len(payload))
    disk = shop.build(
        shop.image(
            layer(
                {
                    **BASE,
                    f"{MODULES}/vmlinuz": bytes(image) + payload,
                    f"{MODULES}/modules.builtin": VIRTIO.encode(),
                    f"{MODULES}/modules.dep": b"a/erofs.ko: a/netfs.ko\na/netfs.ko:\na/ext4.ko.gz:\n",
                    f"{MODULES}/a/erofs.ko": MODULE + b"erofs",
                    f"{MODULES}/a/netfs.ko": MODULE + b"netfs",
                    f"{MODULES}/a/ext4.ko.gz": gzip.compress(MODULE + b"ext4"),
                }
            )
        )
    )
    assert disk.kernel_pvh is not None
    assert disk.kernel_pvh.read_bytes() == elf
    assert disk.kernel_pvh.stat().st_blocks * 512 < 1 << 19  # zeros take no space
    content = disk.initramfs.read_bytes()
    places = [content.find(MODULE + name) for name in (b"netfs", b"erofs", b"ext4")]
    assert places == sorted(places)
    assert min(places) > 0


def test_a_disk_is_made_once(shop: Shop) -> None:
    image = shop.image(layer(BASE))
    first = shop.build(image)
    inode = first.folder.stat().st_ino
    assert shop.build(image) == first
    assert first.folder.stat().st_ino == inode
    assert len(shop.fetched) == 1


def test_a_disk_says_what_it_is_and_what_it_needs(shop: Shop) -> None:
    image = shop.image(layer(BASE), layer({"etc/hosts": b""}), layer(BASE))
    about = shop.cache.about(shop.build(image).folder)
    assert about is not None
    assert (about.image, about.digest) == (str(image.reference), str(image.digest))
    assert about.needs == tuple(f"layers/{layer.diff_id.hex}" for layer in image.layers[:2])


def test_a_disk_is_in_use_and_its_layers_while_it_is_made(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[bool] = []

    def find(tree: Any) -> Any:
        removed.extend(shop.cache.remove(path) for path in shop.cache.layers.iterdir())
        return find_kernel(tree)

    monkeypatch.setattr(live, "find_kernel", find)
    image = shop.image(layer(BASE), layer({"etc/hosts": b""}))
    for _ in range(2):  # made, and found
        disk = shop.build(image)
        assert removed == [False, False]
        assert not shop.cache.remove(disk.folder)
        shop.leases.close()
    assert shop.cache.remove(disk.folder)
    assert all(shop.cache.remove(path) for path in shop.cache.layers.iterdir())


def test_packing_the_layers_otherwise_changes_nothing(shop: Shop) -> None:
    first = shop.build(shop.image(layer(BASE)))
    second = shop.build(shop.image(layer(BASE), compression="+zstd"))
    assert (second.key, second.folder) == (first.key, first.folder)
    assert second.image.digest != first.image.digest


def test_what_makes_another_disk(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    image = shop.image(layer(BASE))
    keys = {shop.build(image).key, shop.build(image, var_gib=2).key}
    keys.add(shop.build(shop.image(layer(BASE), layer({"etc/x": b""}))).key)
    keys.add(shop.build(shop.image(layer(BASE), config_config={"Labels": {"made": "otherwise"}})).key)
    monkeypatch.setattr(live, "RECIPE", live.RECIPE + 1)
    keys.add(shop.build(image).key)
    assert len(keys) == 5


def test_another_tool_makes_another_disk(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    image = shop.image(layer(BASE))
    first = shop.build(image)
    monkeypatch.setattr(erofs, "tool_version", lambda deadline: (9, 9))
    second = shop.build(image)
    assert second.key != first.key
    assert len(list(second.layers[0].parent.glob("*.erofs"))) == 2


def test_a_layer_is_indexed_once_for_all_its_images(shop: Shop) -> None:
    one = shop.build(shop.image(layer(BASE), layer({"etc": None, "etc/one": b""})))
    (index,) = one.layers[0].parent.glob("*.erofs")
    inode = index.stat().st_ino
    two = shop.build(shop.image(layer(BASE), layer({"etc": None, "etc/two": b""})))
    assert two.layers[0] == one.layers[0]
    assert index.stat().st_ino == inode
    assert len(shop.fetched) == 3


def test_a_layer_is_looked_through_once_for_all_its_images(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    scanned: list[str] = []

    def scan(path: Path, *, size: int) -> list[Any]:
        scanned.append(path.stem)
        return tar.scan(path, size=size)

    monkeypatch.setattr(live, "scan", scan)
    shop.build(shop.image(layer(BASE), layer({"etc": None, "etc/one": b""})))
    changed = shop.image(layer(BASE), layer({"etc": None, "etc/two": b""}))
    disk = shop.build(changed)
    assert len(scanned) == len(set(scanned)) == 3
    (kept,) = disk.layers[1].parent.glob("*.entries")
    kept.write_bytes(b"spoilt")
    shop.build(changed, var_gib=2)
    assert scanned[3:] == [changed.layers[1].diff_id.hex]


def test_folders_that_a_layer_does_not_list_keep_their_attributes(shop: Shop, tmp_path: Path) -> None:
    lower = layer({**BASE, "usr/closed": None, "usr/closed/x": b"x"})
    upper = layer({"usr/closed/new": b"new", "usr/made/up/file": b"f", "usr/emptied/.wh..wh..opq": b""})
    disk = shop.build(shop.image(lower, upper))
    assert extracted(disk, tmp_path / "root")["usr/closed/new"] == ("644", b"new")
    modes = folders(tmp_path / "root")
    assert {modes[path] for path in ("usr/closed", "usr/made", "usr/made/up", "usr/emptied")} == {"755"}
    assert disk.layers[1].name != f"{disk.layers[1].parent.name}.tar"  # a copy that lists them


def test_copies_of_a_layer_differ_where_lower_layers_do(shop: Shop) -> None:
    upper = layer({"usr/d/new": b"new"})
    lower = {**BASE, "usr/d": None}
    plain = shop.build(shop.image(layer(lower), upper))
    other = shop.build(shop.image(layer(lower, **{"usr/d": {"SCHILY.xattr.user.x": "1"}}), upper))
    assert plain.layers[1] != other.layers[1]
    for disk, count in ((plain, 0), (other, 1)):
        dump = find_program("dump.erofs", resolution="run scripts/setup")
        devices = [f"--device={path}" for path in disk.layers]
        shown = subprocess.run(
            [dump, "--path=/usr/d", *devices, disk.folder / "root.erofs"], capture_output=True, check=True
        ).stdout.decode()
        assert ("Xattr size: 0" not in shown) == bool(count)


def _cut(path: Path) -> None:
    os.truncate(path, 1024)


def _forget(disk: LiveDisk, damaged: Path, content: bytes) -> None:
    """Damage a file beside a layer, which is looked at only when the disk is made again."""
    damaged.write_bytes(content)
    _record(disk).unlink()


def _record(disk: LiveDisk) -> Path:
    return disk.folder / "disk.json"


def _layer_index(disk: LiveDisk) -> Path:
    (index,) = disk.layers[1].parent.glob("*-*.erofs")
    return index


@pytest.mark.parametrize(
    "damage",
    [
        lambda disk: _cut(disk.layers[0]),
        lambda disk: disk.layers[0].unlink(),
        lambda disk: _cut(disk.layers[1]),
        lambda disk: _cut(disk.folder / "root.erofs"),
        lambda disk: disk.root.unlink(),
        lambda disk: _cut(disk.var),
        lambda disk: disk.kernel.write_bytes(b""),
        lambda disk: _record(disk).write_bytes(b""),
        lambda disk: _record(disk).write_text("[]"),
        lambda disk: _record(disk).write_text("{}"),
        lambda disk: _record(disk).unlink(),
        lambda disk: _forget(disk, _layer_index(disk), _layer_index(disk).read_bytes()[:1300]),
        lambda disk: _forget(disk, _layer_index(disk), bytes(_layer_index(disk).stat().st_size)),
        lambda disk: _forget(disk, disk.layers[0].with_name("layer.json"), b"{"),
    ],
    ids=[
        "layer cut off", "layer gone", "completed copy cut off", "index cut off", "description gone", "var cut off",
        "kernel empty", "record empty", "record is a list", "record without fields", "record gone",
        "index of a layer cut off", "index of a layer zeroed", "size of a layer unreadable",
    ],
)  # fmt: skip
def test_what_was_damaged_is_made_again(shop: Shop, tmp_path: Path, damage: Callable[[LiveDisk], object]) -> None:
    image = shop.image(layer(BASE), layer({"usr/new/file": b"upper" * 300}))
    first = shop.build(image)
    damage(first)
    second = shop.build(image)
    files = extracted(second, tmp_path / "root")
    assert files["usr/new/file"] == ("644", b"upper" * 300)
    assert files["etc/hosts"][1] == BASE["etc/hosts"]
    assert debugfs(second.var, "cat /lib/seed") == "seed"
    assert second.kernel.read_bytes() == kernel()
    assert shop.leftovers() == []


def test_images_that_share_a_layer_are_built_at_the_same_time(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one waits for the other's index of the shared layer instead of publishing it a second time."""
    images = [shop.image(layer(BASE), layer({"etc": None, f"etc/{n}": b""})) for n in range(2)]
    shared = str(images[0].layers[0].diff_id.hex)
    made: list[str] = []
    both, met = threading.Barrier(2), threading.local()
    index, is_whole = erofs.index_layer, erofs.is_whole

    def counted(tar: Path, target: Path, deadline: Deadline) -> None:
        made.append(tar.stem)
        index(tar, target, deadline)

    def together(path: Path) -> bool:
        whole = is_whole(path)
        if path.name.startswith(shared) and not hasattr(met, "done"):
            met.done = True
            both.wait(timeout=20)
        return whole

    monkeypatch.setattr(erofs, "index_layer", counted)
    monkeypatch.setattr(erofs, "is_whole", together)
    with ThreadPoolExecutor(2) as pool:
        disks = list(pool.map(shop.build, images))
    assert sum(name.startswith(shared) for name in made) == 1
    assert len(made) == 3
    assert disks[0].layers[0] == disks[1].layers[0]
    assert shop.leftovers() == []


def without(files: Files, *paths: str) -> Files:
    return {path: what for path, what in files.items() if not any(path == p or path.startswith(f"{p}/") for p in paths)}


def on_ext4(disk: LiveDisk) -> str:
    """The one loss of a disk whose root is on ext4."""
    assert (disk.root.name, disk.root_format, disk.root_type) == ("root.raw", "raw", "ext4")
    assert debugfs(disk.root, "cat /etc/hosts") == BASE["etc/hosts"].decode()
    assert debugfs(disk.var, "cat /lib/seed") == "seed"
    (loss,) = disk.losses
    before, _, why = loss.partition(": ")
    assert before == "the root is a copy on ext4, made in more time and space"
    return why


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (
            {**BASE, f"{MODULES}/modules.builtin": (VIRTIO + "kernel/ext4.ko\n").encode()},
            f"the image's kernel {RELEASE} has no erofs",
        ),
        (
            {
                **without(BASE, MODULES),
                "usr/lib/modules/6.3.9-x/vmlinuz": kernel(),
                "usr/lib/modules/6.3.9-x/modules.builtin": EVERYTHING.encode(),
            },
            "the image's kernel 6.3.9-x is older than 6.4 and cannot mount joined devices",
        ),
    ],
)
def test_a_kernel_that_cannot_mount_the_layers(shop: Shop, files: Files, why: str) -> None:
    assert on_ext4(shop.build(shop.image(layer(files)))) == why


def test_a_layer_that_empties_the_root(shop: Shop) -> None:
    disk = shop.build(shop.image(layer({"old": b"", "etc/hosts": b"old"}), layer({".wh..wh..opq": b"", **BASE})))
    assert on_ext4(disk) == "a layer removes everything below it, which mkfs.erofs cannot index"
    assert "old" not in debugfs(disk.root, "ls -p /")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (None, "the host has no mkfs.erofs"),
        ("mkfs.erofs 1.5", "the host's mkfs.erofs is 1.5, older than 1.7"),
    ],
)
def test_a_host_without_the_tool(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, why: str
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    if said:
        (programs / "mkfs.erofs").write_text(f"#!/bin/sh\necho {said}\n")
        (programs / "mkfs.erofs").chmod(0o755)
    for name in ("mke2fs", "debugfs"):
        (programs / name).symlink_to(find_program(name, resolution="install e2fsprogs"))
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setattr("pytest_bootc.command._SYSTEM_FOLDERS", ())
    monkeypatch.setenv("PATH", str(programs))
    disk = shop.build(shop.image(layer(BASE)))
    monkeypatch.undo()
    assert on_ext4(disk) == why


def test_a_root_on_ext4_has_an_inode_for_each_block(shop: Shop) -> None:
    """However small the files are, there are inodes for them; and some room is left."""
    files = {**BASE, f"{MODULES}/modules.builtin": (VIRTIO + "kernel/ext4.ko\n").encode(), "usr/large": bytes(80 << 20)}
    disk = shop.build(shop.image(layer(files)))
    assert on_ext4(disk).endswith("has no erofs")
    dumpe2fs = find_program("dumpe2fs", resolution="install e2fsprogs")
    shown = subprocess.run([dumpe2fs, "-h", disk.root], capture_output=True, check=True).stdout.decode()
    told = dict(re.findall(r"^([A-Z][\w ]+):\s+(.+)$", shown, re.MULTILINE))
    assert int(told["Inode count"]) >= int(told["Block count"])
    assert int(told["Free blocks"]) * 4096 > 64 << 20


def test_attributes_of_the_root_itself_are_lost_and_told(shop: Shop) -> None:
    root = layer({"./": None, **BASE}, **{"./": {"SCHILY.xattr.user.b": "1", "SCHILY.xattr.user.a": "1"}})
    assert shop.build(shop.image(root)).losses == ("/ itself loses its extended attributes user.a, user.b",)


def test_what_a_reader_of_the_verdict_must_know(shop: Shop) -> None:
    files = {
        **without(BASE, "home", f"{MODULES}/vmlinuz"),
        "boot/EFI/Linux/x.efi": unified((".cmdline", b"root=y quiet\0"), (".linux", kernel())),
    }
    disk = shop.build(shop.image(layer(files), layer({"etc": None, "etc/.wh.nothing": b""})))
    assert [note.partition(":")[0] for note in disk.notes] == [
        "the image is not laid out as a bootc image (none of /home /root /opt /srv leads into /var)",
        "a layer removes /etc/nothing, which no lower layer has",
        "arguments of the unified kernel image are not used",
    ]
    assert disk.notes[2].endswith(": root=y quiet")


@pytest.mark.parametrize(
    ("files", "brief"),
    [
        (without(BASE, "proc", "var"), "the image's root cannot be booted read-only: it has no folder /proc, /var"),
        (without(BASE, f"{MODULES}/vmlinuz"), "the image has no kernel"),
        (
            {**BASE, "usr/lib/modules/6.1/vmlinuz": kernel()},
            "the image has 2 kernels, and it cannot be told which one is to boot",
        ),
        (
            {**BASE, f"{MODULES}/modules.builtin": (VIRTIO + "kernel/erofs.ko\n").encode()},
            f"the kernel {RELEASE} of the image has no ext4, which /var of the machine is made of",
        ),
        (
            {**BASE, f"{MODULES}/modules.builtin": EVERYTHING.replace("kernel/virtio_blk.ko\n", "").encode()},
            f"the kernel {RELEASE} of the image has no virtio_blk, neither built in nor as a module",
        ),
        (
            {**BASE, "usr/lib/bootc/kargs.d/10-x.toml": b"kargs = 1"},
            "the kernel arguments in /usr/lib/bootc/kargs.d/10-x.toml cannot be read: "
            "kargs and match-architectures are lists of texts",
        ),
    ],
)
def test_an_image_that_cannot_boot_leaves_no_disk(shop: Shop, files: Files, brief: str) -> None:
    with pytest.raises(ImageError) as caught:
        shop.build(shop.image(layer(files)))
    assert caught.value.brief == brief
    assert (caught.value.blame, bool(caught.value.resolution)) == (Blame.IMAGE, True)
    assert list(shop.cache.disks.iterdir()) == []
    assert shop.leftovers() == []


def test_a_hard_link_that_leaves_its_layer(shop: Shop) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("etc/link")
        info.type, info.linkname = tarfile.LNKTYPE, "etc/hosts"
        tar.addfile(info)
    with pytest.raises(ImageError, match="layer 2 makes /etc/link a hard link to /etc/hosts"):
        shop.build(shop.image(layer(BASE), out.getvalue()))
    assert list(shop.cache.disks.iterdir()) == []


def test_a_tool_that_fails_is_the_labs_trouble(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "mkfs.erofs").write_text('#!/bin/sh\n[ "$1" = -V ] && echo 1.8 || { echo no luck >&2; exit 1; }\n')
    (programs / "mkfs.erofs").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with pytest.raises(DiskError) as caught:
        shop.build(shop.image(layer(BASE)))
    assert caught.value.brief.startswith("could not index the layer ")
    assert "no luck" in caught.value.details
    assert caught.value.blame is Blame.LAB
    assert list(shop.cache.disks.iterdir()) == []
    assert shop.leftovers() == []


def test_a_disk_that_vanishes_at_once_is_the_labs_trouble(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = shop.cache.publish

    def lost(build: Callable[[Path], None], final: Path, about: About | None = None) -> None:
        publish(build, final, about)
        if final.parent == shop.cache.disks:
            (final / "disk.json").unlink()

    monkeypatch.setattr(shop.cache, "publish", lost)
    with pytest.raises(BootcTestError) as caught:
        shop.build(shop.image(layer(BASE)))
    assert "vanished from the cache" in caught.value.brief
    assert caught.value.blame is Blame.LAB


def test_the_record_is_plain_json(shop: Shop) -> None:
    disk = shop.build(shop.image(layer(BASE)))
    record = json.loads(_record(disk).read_text())
    assert record["digest"] == str(disk.image.digest)
    assert set(record["files"]) == {path.name for path in disk.folder.iterdir()} - {"disk.json", "entry.json"}
