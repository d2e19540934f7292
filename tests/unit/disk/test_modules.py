"""Modules, as depmod(8) describes them."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable

import pytest
import zstandard

from pytest_bootc.disk.modules import KernelModules
from pytest_bootc.disk.tree import Tree
from pytest_bootc.errors import Blame, ImageError

TreeOf = Callable[..., Tree]
RELEASE = "6.12.0-test"
FOLDER = f"usr/lib/modules/{RELEASE}"
MODULE = b"\x7fELF" + bytes(range(256)) * 20 + b"~Module signature appended~\n"

DEP = """\
kernel/lib/libcrc32c.ko.xz:
kernel/crypto/crc32c-intel.ko.xz:
kernel/crypto/crc32c_generic.ko:
kernel/fs/netfs/netfs.ko.zst:
kernel/fs/erofs/erofs.ko.gz: kernel/fs/netfs/netfs.ko.zst kernel/lib/libcrc32c.ko.xz
kernel/fs/jbd2/jbd2.ko:
kernel/fs/mbcache.ko:
kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/fs/mbcache.ko
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio-blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/round/about.ko:
kernel/round/turn.ko:
"""
BUILTIN = "kernel/drivers/virtio/virtio-pci.ko\nkernel/fs/overlayfs/overlay.ko\n"
SOFTDEP = """\
# Soft dependencies extracted from modules themselves.
softdep ext4 pre: crypto-crc32c
softdep libcrc32c pre: crc32c
softdep erofs pre: jbd2
softdep erofs pre: mbcache nothing-that-is-here post: virtio
softdep netfs post: jbd2
softdep cifs aes
softdep mbcache post: crc32c pre: libcrc32c
softdep
softdep about pre: turn
softdep turn pre: about
"""
ALIAS = """\
# Aliases extracted from modules themselves.
alias crypto-crc32c-intel crc32c_intel
alias crypto-crc32c crc32c_intel
alias crc32c crc32c_intel
alias crypto-crc32c crc32c_generic
alias crc32c crc32c_generic
alias cpu:type:x86,ven*fam*mod*:feature:*0094* crc32c_intel
alias mbcache jbd2
"""
FILES = {
    f"{FOLDER}/modules.dep": DEP.encode(),
    f"{FOLDER}/modules.builtin": BUILTIN.encode(),
    f"{FOLDER}/modules.softdep": SOFTDEP.encode(),
    f"{FOLDER}/modules.alias": ALIAS.encode(),
    f"{FOLDER}/kernel/lib/libcrc32c.ko.xz": lzma.compress(MODULE, check=lzma.CHECK_CRC32),
    f"{FOLDER}/kernel/fs/netfs/netfs.ko.zst": zstandard.compress(MODULE),
    f"{FOLDER}/kernel/fs/erofs/erofs.ko.gz": gzip.compress(MODULE),
    f"{FOLDER}/kernel/fs/ext4/ext4.ko": MODULE,
}


@pytest.fixture
def modules(tree_of: TreeOf) -> KernelModules:
    return KernelModules(tree_of(FILES), RELEASE)


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("ext4", True),
        ("overlay", True),
        ("virtio_pci", True),
        ("virtio_blk", True),
        ("crc32c_intel", True),
        ("xfs", False),
        ("crc32c", False),
    ],
)
def test_built_in_or_a_module(modules: KernelModules, name: str, has: bool) -> None:  # noqa: FBT001
    assert modules.has(name) is has


def test_what_a_module_needs_comes_before_it(modules: KernelModules) -> None:
    assert modules.load_order(["virtio_blk"]) == ["virtio", "virtio_ring", "virtio_blk"]
    assert modules.load_order(["virtio_ring", "virtio_blk", "virtio"]) == ["virtio", "virtio_ring", "virtio_blk"]


def test_what_is_built_in_is_not_loaded(modules: KernelModules) -> None:
    assert modules.load_order(["virtio_pci", "overlay"]) == []


def test_an_alias_loads_every_module_that_has_it(modules: KernelModules) -> None:
    order = modules.load_order(["ext4"])
    assert order == ["crc32c_intel", "crc32c_generic", "libcrc32c", "mbcache", "jbd2", "ext4"]


def test_soft_dependencies_of_all_lines_come_first(modules: KernelModules) -> None:
    order = modules.load_order(["erofs"])
    assert order == ["jbd2", "crc32c_intel", "crc32c_generic", "libcrc32c", "mbcache", "netfs", "erofs"]


def test_what_is_wanted_afterwards_is_not_loaded(modules: KernelModules) -> None:
    assert modules.load_order(["netfs"]) == ["netfs"]


def test_soft_dependencies_may_go_in_circles(modules: KernelModules) -> None:
    assert sorted(modules.load_order(["about"])) == ["about", "turn"]


def test_a_module_that_the_kernel_lacks(modules: KernelModules) -> None:
    with pytest.raises(ImageError) as caught:
        modules.load_order(["ext4", "xfs"])
    assert caught.value.brief == f"the kernel {RELEASE} of the image has no xfs, neither built in nor as a module"
    assert caught.value.resolution
    assert caught.value.blame is Blame.IMAGE


@pytest.mark.parametrize("name", ["ext4", "libcrc32c", "netfs", "erofs"])
def test_a_module_is_read_whole_and_unpacked(modules: KernelModules, name: str) -> None:
    assert modules.read(name) == MODULE


def test_a_module_that_is_listed_and_not_there(modules: KernelModules) -> None:
    with pytest.raises(ImageError, match=f"the image has no file /{FOLDER}/kernel/fs/jbd2/jbd2.ko"):
        modules.read("jbd2")


@pytest.mark.parametrize(
    "broken",
    [
        {"kernel/fs/erofs/erofs.ko.gz": gzip.compress(MODULE)[:-9]},
        {"kernel/fs/erofs/erofs.ko.gz": gzip.compress(MODULE)[:20] + bytes(900)},
        {"kernel/fs/netfs/netfs.ko.zst": zstandard.compress(MODULE)[:-3]},
        {"kernel/lib/libcrc32c.ko.xz": lzma.compress(MODULE)[:-30]},
        {"kernel/lib/libcrc32c.ko.xz": lzma.compress(b"no module")},
        {"kernel/fs/ext4/ext4.ko": b""},
    ],
)
def test_a_broken_module_is_named(tree_of: TreeOf, broken: dict[str, bytes]) -> None:
    ((path, content),) = broken.items()
    modules = KernelModules(tree_of({**FILES, f"{FOLDER}/{path}": content}), RELEASE)
    with pytest.raises(ImageError) as caught:
        modules.read(path.rpartition("/")[2].partition(".")[0])
    assert caught.value.brief.startswith(f"the kernel module /{FOLDER}/{path} of the image is broken: ")


def test_a_kernel_without_modules_has_nothing(tree_of: TreeOf) -> None:
    modules = KernelModules(tree_of({"etc/hosts": b""}), RELEASE)
    assert not modules.has("ext4")
    assert modules.load_order([]) == []
