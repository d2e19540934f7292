"""The golden disk *live*: the image's own files as the root of a machine, without installing anything."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from pytest_bootc.cache import About, Cache
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk import contents, entries, erofs
from pytest_bootc.disk.ext4 import Ext4, make_ext4
from pytest_bootc.disk.indexes import Indexes
from pytest_bootc.disk.initramfs import Root, base_archive
from pytest_bootc.disk.kernel import Kernel, find_kernel, isa_level, release_number
from pytest_bootc.disk.layers import LayerStore, StoredLayer
from pytest_bootc.disk.modules import KernelModules
from pytest_bootc.disk.tar import EntryKind, TarEntry, scan
from pytest_bootc.disk.tree import Tree, implied_folder
from pytest_bootc.errors import DiskError, ImageError
from pytest_bootc.model import LiveDisk, ResolvedImage
from pytest_bootc.progress import Progress
from pytest_bootc.source import ImageSource

RECIPE = 4
"""Counts up whenever the same layers are to become another disk."""

_MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "overlay")
_CHAR = EntryKind.CHAR
_PAGE = 4096
_RECORD, _SAMPLES = "disk.json", "samples.json"


@dataclass(frozen=True)
class Workshop:
    """Where and how disks are built: the cache, the time there is, who is told, and the size of /var in GiB.

    ``leases`` keeps the disks from being removed; while nobody closes it, that is until the process ends.
    """

    cache: Cache
    deadline: Deadline
    progress: Progress
    var_gib: int
    leases: ExitStack = field(default_factory=ExitStack)


def build_live_disk(image: ResolvedImage, source: ImageSource, workshop: Workshop) -> LiveDisk:
    """The golden disk of an image: from the cache, else made from its layers.

    :raises ImageError: the image cannot be booted in a machine (no kernel, hostile layers, ...).
    :raises RegistryError: a layer could not be had, or is not what its digest says.
    :raises DiskError: the host could not make the disk.
    """
    tool = erofs.tool_version(workshop.deadline)
    key = _key(image, tool, workshop.var_gib)
    final = workshop.cache.disks / key
    with ExitStack() as lease:
        lease.enter_context(workshop.cache.lease(final, workshop.deadline))
        disk = _load(final, image)
        if disk is None:
            with workshop.cache.lock(f"disk-{key}", workshop.deadline, workshop.progress):
                disk = _load(final, image)  # another run may have made it while we waited
                if disk is None:
                    _make(image, source, workshop, final, tool)
                    disk = _load(final, image)
        if disk is None:
            raise DiskError(f"the disk {key} vanished from the cache, or changed, just after it was made")
        workshop.leases.enter_context(lease.pop_all())
        return disk


def find_live_disk(image: ResolvedImage, workshop: Workshop) -> LiveDisk | None:
    """The golden disk of an image, if the cache has it and nobody works on it.

    :raises DiskError: the cache cannot be used.
    """
    final = workshop.cache.disks / _key(image, erofs.tool_version(workshop.deadline), workshop.var_gib)
    with ExitStack() as lease:
        lease.enter_context(workshop.cache.lease(final, workshop.deadline))
        disk = _load(final, image)
        if disk is not None:
            workshop.leases.enter_context(lease.pop_all())
        return disk


def _make(
    image: ResolvedImage, source: ImageSource, workshop: Workshop, final: Path, tool: tuple[int, int] | None
) -> None:
    cache, store = workshop.cache, LayerStore(workshop.cache)
    folders = [store.path(diff_id).parent for diff_id in {layer.diff_id: None for layer in image.layers}]
    with ExitStack() as leases:
        for folder in folders:
            leases.enter_context(cache.lease(folder, workshop.deadline))
        stored = store.obtain(image, source, workshop.deadline, workshop.progress)
        with workshop.progress.stage(f"building the golden disk of {image.reference.short}"):
            builder = _Builder(image, stored, workshop, tool)
            about = About(str(image.reference), str(image.digest), tuple(cache.name_of(folder) for folder in folders))
            cache.publish(lambda folder: builder.build(folder, final), final, about)


def file_hashes(disk: LiveDisk) -> Mapping[str, str]:
    """Absolute path and sha256 of the files whose hashes were taken from the layers when the disk was made."""
    hashes: dict[str, str] = json.loads((disk.folder / _SAMPLES).read_text())
    return hashes


def _key(image: ResolvedImage, tool: tuple[int, int] | None, var_gib: int) -> str:
    parts = [RECIPE, tool, var_gib, image.architecture, [str(layer.diff_id) for layer in image.layers], image.config]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _load(folder: Path, image: ResolvedImage) -> LiveDisk | None:
    """The disk in a folder of the cache; ``None`` where it is not there, or a file of it is gone or cut off."""
    try:
        record = json.loads((folder / _RECORD).read_text())
        parts = {**record["layers"], **{str(folder / name): size for name, size in record["files"].items()}}
    except (FileNotFoundError, ValueError, TypeError, KeyError):  # not there, or not written by us
        return None
    if any(_size(Path(path)) != size for path, size in parts.items()):
        return None
    return LiveDisk(
        key=folder.name,
        image=image,
        folder=folder,
        root=folder / record["root"],
        root_format=record["root_format"],
        root_type=record["root_type"],
        var=folder / "var.raw",
        kernel=folder / "vmlinuz",
        kernel_pvh=folder / "vmlinux" if record["pvh"] else None,
        kernel_release=record["kernel_release"],
        kernel_arguments=tuple(record["kernel_arguments"]),
        initramfs=folder / "initramfs",
        isa_level=record["isa_level"],
        ssh_units=tuple(record["ssh_units"]),
        folders=record["folders"],
        losses=tuple(record["losses"]),
        notes=tuple(record["notes"]),
        layers=tuple(Path(path) for path in record["layers"]),
    )


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


class _Builder:
    """Makes one disk."""

    def __init__(
        self, image: ResolvedImage, stored: Sequence[StoredLayer], workshop: Workshop, tool: tuple[int, int] | None
    ) -> None:
        self._image = image
        self._stored = stored
        self._layers = [layer.path for layer in stored]
        self._workshop = workshop
        self._tool = tool
        # Another recipe or tool makes another index; one that is there is not asked how it was made.
        self._index_form = hashlib.sha256(repr((RECIPE, tool)).encode()).hexdigest()[:8]
        self._tree = Tree(self._layers)
        self._losses: list[str] = []
        self._notes: list[str] = []

    def build(self, folder: Path, final: Path) -> None:
        """Make the disk in ``folder``, which will be ``final``."""
        workshop = self._workshop
        folder.mkdir()
        with Indexes(workshop.cache, workshop.deadline, workshop.progress, self._index_form) as indexes:
            for layer in self._stored:
                missing = self._tree.apply(self._entries(layer))
                if self._tool is not None and self._tool >= erofs.OLDEST_TOOL:
                    indexes.add(layer.path, missing)
            self._check()
            kernel = find_kernel(self._tree)
            modules = KernelModules(self._tree, kernel.release)
            root_file, root = self._root(folder, final, kernel, modules, indexes)
        self._write_kernel(folder, kernel, modules, root)
        shape = Ext4("var", workshop.var_gib * 1024)
        self._losses += make_ext4(self._tree, "var", folder / "var.raw", shape, workshop.deadline)
        hashes = contents.samples(self._tree, random.Random())
        (folder / _SAMPLES).write_text(json.dumps(hashes))
        self._write_record(folder, kernel, root_file, root)

    def _entries(self, layer: StoredLayer) -> list[TarEntry]:
        """What is in a layer: looked through once for all its images."""
        kept = layer.path.with_suffix(f".{entries.FORM}.entries")
        found = entries.load(kept)
        if found is None:
            made = scan(layer.path, size=layer.size)
            with self._workshop.cache.lock(kept.name, self._workshop.deadline, self._workshop.progress):
                self._workshop.cache.publish(lambda path: entries.save(made, path), kept)
            found = made
        for entry in found:
            if entry.kind is _CHAR and entry.device == (0, 0):
                raise ImageError(
                    f"layer {layer.diff_id} has the device 0:0 at /{entry.path}, which file systems take for a removal",
                    resolution="build the image anew: layers mark removals by names that begin with .wh.",
                )
        return found

    def _check(self) -> None:
        missing = contents.missing_mount_points(self._tree)
        if missing:
            raise ImageError(
                f"the image's root cannot be booted read-only: it has no folder {', '.join('/' + m for m in missing)}",
                resolution="make the folder in the image; bootc images have all of /dev /proc /sys /run /etc /var",
            )
        if not contents.has_deployment_layout(self._tree):
            self._notes.append(
                "the image is not laid out as a bootc image (none of /home /root /opt /srv leads into /var):"
                " it is judged with a read-only / all the same"
            )
        for path in self._tree.useless_whiteouts:
            self._notes.append(f"a layer removes /{path}, which no lower layer has")

    def _root(
        self, folder: Path, final: Path, kernel: Kernel, modules: KernelModules, indexes: Indexes
    ) -> tuple[str, Root]:
        var_type = self._var_type(modules)
        why_not = self._why_not_erofs(kernel, modules)
        if why_not is None:
            self._erofs_root(folder, final, indexes)
            return "root.vmdk", Root("erofs", "", var_type)
        self._losses.append(f"the root is a copy on ext4, made in more time and space: {why_not}")
        used = sum(node.entry.size + 4096 for _, node in self._tree.below("")) // 2**20
        shape = Ext4("root", used + used // 8 + 256, inode_ratio_kib=4)
        self._losses += make_ext4(self._tree, "", folder / "root.raw", shape, self._workshop.deadline)
        return "root.raw", Root("ext4", "", var_type)

    def _why_not_erofs(self, kernel: Kernel, modules: KernelModules) -> str | None:
        if self._tool is None:
            return "the host has no mkfs.erofs"
        if self._tool < erofs.OLDEST_TOOL:
            return f"the host's mkfs.erofs is {self._tool[0]}.{self._tool[1]}, older than 1.7"
        if self._tree.emptied_root:
            return "a layer removes everything below it, which mkfs.erofs cannot index"
        if not modules.has("erofs"):
            return f"the image's kernel {kernel.release} has no erofs"
        if release_number(kernel.release) < erofs.OLDEST_KERNEL:
            return f"the image's kernel {kernel.release} is older than 6.4 and cannot mount joined devices"
        return None

    def _var_type(self, modules: KernelModules) -> str:
        if not modules.has("ext4"):
            raise ImageError(
                f"the kernel {modules.release} of the image has no ext4, which /var of the machine is made of",
                resolution="add ext4 to the image's kernel or modules",
            )
        return "ext4"

    def _erofs_root(self, folder: Path, final: Path, indexes: Indexes) -> None:
        self._layers, files = indexes.finish()
        merged = folder / "root.erofs"
        erofs.merge(files, merged, self._workshop.deadline)
        root = self._tree.nodes.get("")
        erofs.set_root(merged, root.entry if root else implied_folder(""))
        if root and root.entry.xattrs:
            self._losses.append(f"/ itself loses its extended attributes {', '.join(sorted(root.entry.xattrs))}")
        description = erofs.flat_disk(merged, final / merged.name, self._layers)
        (folder / "root.vmdk").write_text(description)

    def _write_kernel(self, folder: Path, kernel: Kernel, modules: KernelModules, root: Root) -> None:
        (folder / "vmlinuz").write_bytes(kernel.image)
        if kernel.pvh is not None:
            _write_sparse(folder / "vmlinux", kernel.pvh)
        if kernel.arguments:
            self._notes.append(f"arguments of the unified kernel image are not used: {kernel.arguments}")
        order = modules.load_order((*_MODULES, root.root_type, root.var_type))
        archive = base_archive([(f"{name}.ko", modules.read(name)) for name in order], root)
        (folder / "initramfs").write_bytes(archive)

    def _write_record(self, folder: Path, kernel: Kernel, root_file: str, root: Root) -> None:
        record = {
            "digest": str(self._image.digest),
            "layers": {str(path): path.stat().st_size for path in self._layers},
            "files": {path.name: path.stat().st_size for path in folder.iterdir()},
            "root": root_file,
            "root_format": Path(root_file).suffix[1:],
            "root_type": root.root_type,
            "pvh": kernel.pvh is not None,
            "kernel_release": kernel.release,
            "kernel_arguments": contents.kernel_arguments(self._tree, self._image.architecture),
            "isa_level": isa_level(self._tree),
            "ssh_units": contents.ssh_units(self._tree),
            "folders": contents.etc_folders(self._tree),
            "losses": self._losses,
            "notes": self._notes,
        }
        (folder / _RECORD).write_text(json.dumps(record, indent=1))


def _write_sparse(path: Path, content: bytes) -> None:
    """Write a file with holes where it has whole pages of zeros: a third of an unpacked kernel is such."""
    zeros = bytes(_PAGE)
    with path.open("wb") as file:
        for at in range(0, len(content), _PAGE):
            page = content[at : at + _PAGE]
            if page != zeros:
                file.seek(at)
                file.write(page)
        file.truncate(len(content))
