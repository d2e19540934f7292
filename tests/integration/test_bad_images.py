"""Images that cannot become a disk, or not the usual one, made of the server image by a layer on top; and bad hosts."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pytest_bootc.cache import Cache
from pytest_bootc.command import find_program
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.layers import LayerStore
from pytest_bootc.disk.live import Workshop, build_live_disk
from pytest_bootc.disk.tar import EntryKind, scan
from pytest_bootc.disk.tree import Tree
from pytest_bootc.errors import Blame, DiskError, ImageError
from pytest_bootc.image import ImageReference
from pytest_bootc.model import LiveDisk, ResolvedImage
from pytest_bootc.progress import Silent
from pytest_bootc.source import source_for

pytestmark = pytest.mark.integration
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")

MODULES = "usr/lib/modules"
Content = bytes | None  # of a file; None hides it


def resolve(layout: Path) -> ResolvedImage:
    reference = ImageReference.parse(f"oci:{layout}")
    return source_for(reference).resolve(reference, Deadline.after(30))


class Server:
    """The server image, its layers in a cache that others start from, and its tree."""

    def __init__(self, layout: Path, home: Path) -> None:
        self.layout = layout
        self.home = home
        self.image = resolve(layout)
        stored = LayerStore(Cache(home)).obtain(
            self.image, source_for(self.image.reference), Deadline.after(300), Silent()
        )
        self.tree = Tree([layer.path for layer in stored])
        for layer in stored:
            self.tree.apply(scan(layer.path, size=layer.size))
        (self.release,) = self.tree.names(MODULES)
        self.modules = f"{MODULES}/{self.release}"

    def cache(self, home: Path) -> Cache:
        """A cache that has the layers already."""
        shutil.copytree(self.home, home, copy_function=os.link)
        return Cache(home)

    def with_layer(self, files: Mapping[str, Content], target: Path) -> ResolvedImage:
        """The image with one more layer: files in a folder that others in the path have, or their removal."""
        shutil.copytree(self.layout, target, copy_function=os.link)
        tar = _tar(files)
        packed = gzip.compress(tar, 1, mtime=0)
        index = json.loads((target / "index.json").read_bytes())
        manifest = json.loads(_blob(target, index["manifests"][0]["digest"]).read_bytes())
        config = json.loads(_blob(target, manifest["config"]["digest"]).read_bytes())
        config["rootfs"]["diff_ids"].append(f"sha256:{hashlib.sha256(tar).hexdigest()}")
        config.pop("history", None)
        layer_type = "application/vnd.oci.image.layer.v1.tar+gzip"
        manifest["layers"].append(_add(target, packed, layer_type))
        manifest["config"] = _add(target, json.dumps(config).encode(), manifest["config"]["mediaType"])
        index["manifests"] = [_add(target, json.dumps(manifest).encode(), manifest["mediaType"])]
        (target / "index.json").unlink()
        (target / "index.json").write_text(json.dumps(index))
        return resolve(target)

    def read(self, name: str) -> str:
        return self.tree.read(f"{self.modules}/{name}").decode()


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def _add(layout: Path, content: bytes, media_type: str) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    _blob(layout, digest).write_bytes(content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _tar(files: Mapping[str, Content]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in files.items():
            folder, _, name = path.rpartition("/")
            hidden = f"{folder}/.wh.{name}".lstrip("/")
            info = tarfile.TarInfo(hidden if content is None else path)
            info.size = len(content or b"")
            info.mode = 0o644
            tar.addfile(info, io.BytesIO(content or b""))
    return out.getvalue()


@pytest.fixture(scope="module")
def server(image_layout: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Server:
    return Server(image_layout["server"], tmp_path_factory.mktemp("bad-images") / "layers")


def build(image: ResolvedImage, cache: Cache) -> LiveDisk:
    with ExitStack() as leases:
        workshop = Workshop(cache, Deadline.after(300), Silent(), 8, leases)
        return build_live_disk(image, source_for(image.reference), workshop)


def leftovers(cache: Cache) -> list[str]:
    """What is neither a stored layer nor a finished disk, and every disk."""
    inside = [*cache.home.glob("locks/*"), *cache.disks.iterdir(), *cache.layers.glob(".*"), *cache.layers.glob("*/.*")]
    return [str(path.relative_to(cache.home)) for path in inside]


def no_kernel(server: Server) -> dict[str, Content]:
    return {f"{server.modules}/vmlinuz": None}


def two_kernels(server: Server) -> dict[str, Content]:
    return {f"{MODULES}/6.1.0-other/vmlinuz": b"another"}


def other_kernel(server: Server) -> dict[str, Content]:
    return {f"{server.modules}/vmlinuz": b"\x7fELF" + bytes(5000)}


def no_mount_point(server: Server) -> dict[str, Content]:
    return {"proc": None}


def no_ext4(server: Server) -> dict[str, Content]:
    """It is built in, or a module."""
    files: dict[str, Content] = {}
    for name in ("modules.builtin", "modules.dep"):
        lines = server.read(name).splitlines()
        kept = [line for line in lines if not line.startswith("kernel/fs/ext4/ext4.ko")]
        if len(kept) < len(lines):
            files[f"{server.modules}/{name}"] = "\n".join(kept).encode()
    assert len(files) == 1
    return files


def broken_module(server: Server) -> dict[str, Content]:
    (path,) = re.findall(r"^(kernel/fs/overlayfs/overlay\.ko\S*):", server.read("modules.dep"), re.MULTILINE)
    return {f"{server.modules}/{path}": server.tree.read(f"{server.modules}/{path}")[:-5000]}


def bad_arguments(server: Server) -> dict[str, Content]:
    return {"usr/lib/bootc/kargs.d/50-bad.toml": b"kargs = [quiet]"}


@pytest.mark.parametrize(
    ("change", "brief"),
    [
        (no_kernel, r"the image has no kernel"),
        (two_kernels, r"the image has 2 kernels, and it cannot be told which one is to boot"),
        (other_kernel, r"/usr/lib/modules/\S+/vmlinuz is no kernel that this machine can boot: it is no x86 bzImage"),
        (no_mount_point, r"the image's root cannot be booted read-only: it has no folder /proc"),
        (no_ext4, r"the kernel \S+ of the image has no ext4, which /var of the machine is made of"),
        (broken_module, r"the kernel module /usr/lib/modules/\S+/overlay.ko\S* of the image is broken: .+"),
        (bad_arguments, r"the kernel arguments in /usr/lib/bootc/kargs.d/50-bad.toml cannot be read: .+"),
    ],
)
def test_an_image_that_cannot_boot_is_refused(
    server: Server, tmp_path: Path, change: Callable[[Server], dict[str, Content]], brief: str
) -> None:
    image = server.with_layer(change(server), tmp_path / "layout")
    cache = server.cache(tmp_path / "cache")
    with pytest.raises(ImageError) as caught:
        build(image, cache)
    assert re.fullmatch(brief, caught.value.brief)
    assert caught.value.blame is Blame.IMAGE
    assert leftovers(cache) == []
    # The layers have been checked and stay; nothing else has come to be.
    assert len(list(cache.layers.glob("*/*.tar"))) >= len(image.layers)


TYPES = {
    EntryKind.FILE: stat.S_IFREG,
    EntryKind.FOLDER: stat.S_IFDIR,
    EntryKind.SYMLINK: stat.S_IFLNK,
    EntryKind.CHAR: stat.S_IFCHR,
    EntryKind.BLOCK: stat.S_IFBLK,
    EntryKind.FIFO: stat.S_IFIFO,
}
Fields = tuple[object, ...]


def wanted(tree: Tree) -> tuple[dict[str, Fields], set[frozenset[str]]]:
    """What the tree says of every file, and which names are one file."""
    files: dict[str, Fields] = {}
    linked: defaultdict[int, set[str]] = defaultdict(set)
    for path, node in tree.below(""):
        entry = node.entry
        what = entry.target if entry.kind is EntryKind.SYMLINK else ""
        if entry.kind is EntryKind.FILE:
            with tree.layers[node.layer].open("rb") as tar:
                tar.seek(entry.offset)
                what = hashlib.sha256(tar.read(entry.size)).hexdigest()
        mode = 0o777 if entry.kind is EntryKind.SYMLINK else entry.mode
        attributes = dict(sorted(entry.xattrs.items()))
        files[path] = (TYPES[entry.kind], mode, entry.uid, entry.gid, int(entry.mtime), what, attributes)
        if entry.kind is not EntryKind.FOLDER:
            linked[id(entry)].add(path)
    return files, {frozenset(names) for names in linked.values() if len(names) > 1}


def shown(root: Path) -> tuple[dict[str, Fields], set[frozenset[str]]]:
    """The same of what is mounted; a folder of the file system's own is left out."""
    files: dict[str, Fields] = {}
    linked: defaultdict[int, set[str]] = defaultdict(set)
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            path = Path(folder, name)
            inside = str(path.relative_to(root))
            info = path.lstat()
            what = str(path.readlink()) if path.is_symlink() else ""
            if stat.S_ISREG(info.st_mode):
                what = hashlib.sha256(path.read_bytes()).hexdigest()
            keys = sorted(os.listxattr(path, follow_symlinks=False))
            attributes = {key: os.getxattr(path, key, follow_symlinks=False) for key in keys}
            kind, mode = stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode)
            files[inside] = (kind, mode, info.st_uid, info.st_gid, int(info.st_mtime), what, attributes)
            if not stat.S_ISDIR(info.st_mode):
                linked[info.st_ino].add(inside)
    del files["lost+found"]
    return files, {frozenset(names) for names in linked.values() if len(names) > 1}


@contextmanager
def mounted(image: Path, target: Path) -> Iterator[Path]:
    target.mkdir()
    subprocess.run(["mount", "-o", "loop,ro,noload", image, target], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True)


def without_mkfs_erofs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that has e2fsprogs and no erofs-utils."""
    folder.mkdir()
    for name in ("mke2fs", "debugfs"):
        (folder / name).symlink_to(find_program(name, resolution="install e2fsprogs"))
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setattr("pytest_bootc.command._SYSTEM_FOLDERS", ())
    monkeypatch.setenv("PATH", str(folder))


@needs_root
def test_without_mkfs_erofs_the_root_is_the_same_on_ext4(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = server.cache(tmp_path / "cache")
    with monkeypatch.context() as patch:
        without_mkfs_erofs(tmp_path / "bin", patch)
        disk = build(server.image, cache)
    assert (disk.root.name, disk.root_format, disk.root_type) == ("root.raw", "raw", "ext4")
    assert disk.losses == ("the root is a copy on ext4, made in more time and space: the host has no mkfs.erofs",)
    e2fsck = find_program("e2fsck", resolution="install e2fsprogs")
    subprocess.run([e2fsck, "-f", "-n", disk.root], check=True, capture_output=True)
    with mounted(disk.root, tmp_path / "root") as root:
        files, links = shown(root)
    expected, expected_links = wanted(server.tree)
    assert sorted(files.keys() ^ expected.keys()) == []
    different = {path: (files[path], fields) for path, fields in expected.items() if files[path] != fields}
    assert not different, "\n".join(f"{path}: {seen} instead of {fields}" for path, (seen, fields) in different.items())
    assert links == expected_links
    assert len(files) > 5000
    assert len(links) > 0
    assert any(fields[-1] for fields in files.values())


def test_a_kernel_that_is_too_old_gets_its_root_on_ext4(server: Server, tmp_path: Path) -> None:
    """The modules of the server image, as if they were of another kernel."""
    old = f"{MODULES}/6.3.13-old"
    wanted_modules = re.compile(r"/(ext4|jbd2|mbcache|crc16|crc32c\S*|libcrc32c|virtio\w*|overlay)\.ko")
    files: dict[str, Content] = {server.modules: None}
    for path, node in server.tree.below(server.modules):
        inside = path[len(server.modules) + 1 :]
        if node.entry.kind is EntryKind.FILE and ("/" not in inside or wanted_modules.search(inside)):
            files[f"{old}/{inside}"] = server.tree.read(path)
    disk = build(server.with_layer(files, tmp_path / "layout"), server.cache(tmp_path / "cache"))
    assert (disk.root_type, disk.kernel_release) == ("ext4", "6.3.13-old")
    assert disk.losses == (
        "the root is a copy on ext4, made in more time and space: "
        "the image's kernel 6.3.13-old is older than 6.4 and cannot mount joined devices",
    )
    names = subprocess.run(
        ["cpio", "-t", "--quiet"], input=disk.initramfs.read_bytes(), capture_output=True, check=True
    )
    modules = [name for name in names.stdout.decode().split() if name.startswith("modules/")]
    assert "modules/overlay.ko" in modules
    assert "modules/erofs.ko" not in modules


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A disk of so many MiB, for the cache."""
    place = tmp_path / "small"
    place.mkdir()

    def mount(mib: float) -> Path:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={int(mib * 1024)}k", "tmpfs", place], check=True)
        return place

    yield mount
    subprocess.run(["umount", place], check=True)


def full(caught: pytest.ExceptionInfo[DiskError], cache: Cache) -> str:
    """See to it that the error says what to do, and that nothing was left; return its sentence."""
    error = caught.value
    assert error.blame is Blame.LAB
    assert error.resolution == "free some space, or set XDG_CACHE_HOME to a folder on a larger disk"
    assert "MiB are free on the disk of" in error.details
    assert leftovers(cache) == []
    return error.brief


@needs_root
@pytest.mark.parametrize(
    ("more", "erofs", "brief"),
    [
        # Layers are indexed while others are looked through.
        (0.5, True, r"(could not index the layer .*|[\w.]+\.entries cannot be stored in .*): the disk is full"),
        (4, True, r"\w+ cannot be stored in .*: the disk is full"),
        (0.4, False, r"could not make the file system root: the disk is full"),
        (300, False, r"could not fill the file system root.raw: the disk is full"),
    ],
    ids=["indexing", "kernel", "formatting", "filling"],
)
def test_a_disk_that_gets_full_while_building(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_disk: Callable[[float], Path],
    more: float,
    erofs: bool,  # noqa: FBT001
    brief: str,
) -> None:
    used = sum((path.stat().st_size + 4095) // 4096 * 4 for path in server.home.rglob("*")) / 1024
    place = small_disk(used + more)
    shutil.copytree(server.home, place / "cache")
    cache = Cache(place / "cache")
    if not erofs:
        without_mkfs_erofs(tmp_path / "bin", monkeypatch)
    with pytest.raises(DiskError) as caught:
        build(server.image, cache)
    monkeypatch.undo()
    assert re.fullmatch(brief, full(caught, cache))
    assert len(list(cache.layers.glob("*/*.tar"))) == len(server.image.layers)


@needs_root
@pytest.mark.parametrize(
    ("mib", "brief"), [(40, r"there is no room for .*"), (150, r"\w+ cannot be stored in .*|[\w-]+ cannot be locked")]
)
def test_a_disk_that_gets_full_while_pulling(
    server: Server, small_disk: Callable[[float], Path], mib: int, brief: str
) -> None:
    cache = Cache(small_disk(mib) / "cache")
    with pytest.raises(DiskError) as caught:
        build(server.image, cache)
    assert re.fullmatch(f"({brief}): the disk is full", full(caught, cache))


def test_layers_of_another_size_are_fetched_again(server: Server, tmp_path: Path) -> None:
    """Of one the tar is cut off, of one the size that was noted is wrong, and one is gone."""
    cache = Cache(tmp_path / "cache")
    shutil.copytree(server.home, cache.home, dirs_exist_ok=True)  # copies: the tars are damaged here
    first = build(server.image, cache)
    before = {path.name: path.read_bytes() for path in first.folder.iterdir() if path.name.startswith("root.")}
    layers = [LayerStore(cache).path(layer.diff_id) for layer in server.image.layers]
    os.truncate(layers[0], 1 << 20)
    (layers[1].with_name("layer.json")).write_text(json.dumps({"size": 12345}))
    shutil.rmtree(layers[-1].parent)
    second = build(server.image, cache)
    assert second == first
    assert {path.name: path.read_bytes() for path in second.folder.iterdir() if path.name in before} == before
    for layer in server.image.layers:
        path = LayerStore(cache).path(layer.diff_id)
        size = json.loads(path.with_name("layer.json").read_bytes())["size"]
        with path.open("rb") as tar:
            assert hashlib.sha256(tar.read(size)).hexdigest() == layer.diff_id.hex
    assert leftovers(cache) == [str((cache.disks / first.key).relative_to(cache.home))]
