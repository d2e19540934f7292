"""Indexes made by the real mkfs.erofs, read back by fsck.erofs and, through QEMU's flat disk, by the kernel."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pytest_bootc.command import look_for_program
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk import erofs
from pytest_bootc.disk.tar import scan
from pytest_bootc.disk.tree import Tree, implied_folder
from pytest_bootc.errors import DiskError

Member = tuple[tarfile.TarInfo, bytes]
MakeMember = Callable[..., Member]
FOLDER = {"type": tarfile.DIRTYPE, "mode": 0o755}
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 6, 0xFFFFFFFF), (2, 4, 7), (4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
)

needs_tool = pytest.mark.skipif(look_for_program("mkfs.erofs") is None, reason="mkfs.erofs is not installed")
can_mount = os.geteuid() == 0 and "erofs" in Path("/proc/filesystems").read_text()
needs_mount = pytest.mark.skipif(not can_mount, reason="only root can mount, and only where the kernel knows EROFS")


def soon() -> Deadline:
    return Deadline.after(30)


def tool(name: str) -> Path:
    found = look_for_program(name)
    assert found is not None
    return found


class Image:
    """Layers, their indexes, and the index of all."""

    def __init__(self, folder: Path, layers: Sequence[bytes]) -> None:
        self.folder = folder
        self.layers: list[Path] = []
        self.indexes: list[Path] = []
        self.index = folder / "root.erofs"
        for number, content in enumerate(layers):
            layer = folder / f"layer {number}.tar"
            layer.write_bytes(content + bytes(-len(content) % 512))
            self.layers.append(layer)
            self.indexes.append(layer.with_suffix(".erofs"))
            erofs.index_layer(layer, self.indexes[-1], soon())
        self.tree = Tree(self.layers)
        for layer in self.layers:
            self.tree.apply(scan(layer))
        erofs.merge(self.indexes, self.index, soon())

    def set_root(self) -> None:
        root = self.tree.nodes.get("")
        erofs.set_root(self.index, root.entry if root else implied_folder(""))

    def check(self) -> None:
        """Have erofs-utils look at every inode."""
        devices = [f"--device={layer}" for layer in self.layers]
        subprocess.run([tool("fsck.erofs"), *devices, self.index], check=True, capture_output=True)

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """The flat disk as QEMU reads it, mounted."""
        (self.folder / "root.vmdk").write_text(erofs.flat_disk(self.index, self.index, self.layers))
        disk, target = self.folder / "root.raw", self.folder / "mounted"
        qemu_img = tool("qemu-img")
        subprocess.run([qemu_img, "convert", "-f", "vmdk", "-O", "raw", self.folder / "root.vmdk", disk], check=True)
        target.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "erofs", "-o", "loop,ro", disk, target], check=True)
        try:
            yield target
        finally:
            subprocess.run(["umount", target], check=True)


@pytest.fixture
def image(tmp_path: Path, tar_of: Callable[..., bytes]) -> Callable[..., Image]:
    def make(*layers: list[Member]) -> Image:
        return Image(tmp_path, [tar_of(*layer) for layer in layers])

    return make


def xattr(**values: bytes) -> dict[str, Any]:
    texts = {name.replace("__", "."): value.decode("utf-8", "surrogateescape") for name, value in values.items()}
    return {"pax_headers": {f"SCHILY.xattr.{name}": value for name, value in texts.items()}}


@needs_tool
@needs_mount
def test_the_kernel_reads_the_flat_disk(image: Callable[..., Image], member: MakeMember) -> None:
    names = ["with space", 'quo"te', "back\\slash", "ünï", "\udcff", "n" * 255, "new\nline"]
    made = image(
        [
            member("d", **FOLDER),
            *(member(f"d/{name}", os.fsencode(name) * 500) for name in names),
            member("d/set", b"s", mode=0o6755, uid=100_000, gid=4_294_967_294, mtime=5_000_000_000),
            member("d/before", mtime=-5),
            member("d/half", b"h", mtime=7.5),
            member("d/empty", mtime=0),
            member("d/link", type=tarfile.SYMTYPE, linkname="t" * 4000),
            member("d/disk", type=tarfile.BLKTYPE, mode=0o660, devmajor=259, devminor=70_000),
            member("d/fifo", type=tarfile.FIFOTYPE),
            member("d/one", b"linked" * 1000),
            member("d/two", type=tarfile.LNKTYPE, linkname="d/one"),
            member("d/gone"),
            member("d/capable", b"c", mode=0o755, **xattr(security__capability=CAPABILITY)),
            member("d/acl", b"a", mode=0o640, **xattr(system__posix_acl_access=ACL)),
            member("d/user", b"u", **xattr(user__empty=b"", user__long=b"v" * 5000)),
        ],
        [member("d/.wh.gone"), member("d", mode=0o750, type=tarfile.DIRTYPE), member("d/new", b"upper" * 300)],
    )
    made.set_root()
    with made.mounted() as root:
        folder = root / "d"
        for name in names:
            assert (folder / name).read_bytes() == os.fsencode(name) * 500
        assert (folder / "new").read_bytes() == b"upper" * 300
        assert not (folder / "gone").exists()
        info = (folder / "set").stat()
        assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o6755, 100_000, 4_294_967_294)
        assert info.st_mtime == 5_000_000_000
        times = {name: (folder / name).stat().st_mtime for name in ("before", "half", "empty")}
        assert (times["before"], int(times["half"]), times["empty"]) == (-5, 7, 0)
        assert str((folder / "link").readlink()) == "t" * 4000
        disk = (folder / "disk").stat()
        assert (stat.S_IFMT(disk.st_mode), os.major(disk.st_rdev), os.minor(disk.st_rdev)) == (
            stat.S_IFBLK, 259, 70_000
        )  # fmt: skip
        assert (folder / "fifo").is_fifo()
        assert (folder / "one").samefile(folder / "two")
        assert (folder / "two").read_bytes() == b"linked" * 1000
        assert os.getxattr(folder / "capable", "security.capability") == CAPABILITY
        assert os.getxattr(folder / "acl", "system.posix_acl_access") == ACL
        assert os.getxattr(folder / "user", "user.long") == b"v" * 5000
        assert os.listxattr(folder / "user") == ["user.empty", "user.long"]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o750
        assert sorted(path.name for path in folder.iterdir()) == list(made.tree.names("d"))


@needs_tool
@needs_mount
@pytest.mark.parametrize(
    ("root", "expected"),
    [
        (None, (0o755, 0, 0, 0)),
        ({"mode": 0o700, "uid": 100_000, "gid": 70_000, "mtime": 5_000_000_000}, (0o700, 100_000, 70_000, 5e9)),
        ({"mode": 0o1777, "mtime": -9}, (0o1777, 0, 0, -9)),
    ],
)
def test_the_root_is_what_the_layers_say(
    image: Callable[..., Image], member: MakeMember, root: dict[str, Any] | None, expected: tuple[int, ...]
) -> None:
    listed = [member("./", type=tarfile.DIRTYPE, **root)] if root else []
    made = image([*listed, member("a", b"x")], [member("b", b"y")])
    made.set_root()
    made.check()
    with made.mounted() as mounted:
        info = mounted.stat()
        assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime) == expected
        assert sorted(path.name for path in mounted.iterdir()) == ["a", "b"]


@needs_tool
@needs_mount
def test_the_root_of_an_index_with_small_inodes(image: Callable[..., Image], member: MakeMember) -> None:
    """As mkfs.erofs makes it that knows no build time: owners of 16 bits, and no time of its own."""
    made = image([member("a", b"x")])
    made.index.unlink()
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    subprocess.run(
        [tool("mkfs.erofs"), "--quiet", "--ovlfs-strip=1", made.index, *made.indexes], check=True, env=environment
    )
    erofs.set_root(made.index, implied_folder("")._replace(mode=0o711, uid=7, gid=8))
    made.check()
    with made.mounted() as mounted:
        info = mounted.stat()
        assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o711, 7, 8)


@needs_tool
def test_upper_layers_win(image: Callable[..., Image], member: MakeMember, tmp_path: Path) -> None:
    made = image(
        [member("f", b"low"), member("d/x", b"low"), member("o/old")],
        [member("f", b"middle"), member("d", b"a file now"), member("o/.wh..wh..opq"), member("o/new")],
        [member("f", b"high" * 400)],
    )
    made.set_root()
    target = tmp_path / "extracted"
    devices = [f"--device={layer}" for layer in made.layers]
    subprocess.run(
        [tool("fsck.erofs"), f"--extract={target}", "--no-preserve", *devices, made.index],
        check=True, capture_output=True,
    )  # fmt: skip
    files = {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert files == {"f": b"high" * 400, "d": b"a file now", "o/new": b""}


@needs_tool
def test_two_builds_are_the_same(
    member: MakeMember, tar_of: Callable[..., bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the time is, and whatever time the environment gives out for it."""
    layers = [tar_of(member("a/b", b"x" * 900, mtime=1_700_000_000)), tar_of(member("a/c", mtime=9))]
    made = []
    for name, epoch in (("one", None), ("two", "5")):
        (tmp_path / name).mkdir()
        if epoch:
            monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
        built = Image(tmp_path / name, layers)
        built.set_root()
        made.append((built.index.read_bytes(), [index.read_bytes() for index in built.indexes]))
    assert made[0] == made[1]


@needs_tool
def test_devices_tell_where_the_layers_go(image: Callable[..., Image], member: MakeMember) -> None:
    made = image([member("a", bytes(3000))], [member("b", bytes(100_000))])
    block, slots = erofs.devices(made.index)
    assert block == 512
    for (size, _), layer, data in zip(slots, made.layers, (3000, 100_000), strict=True):
        assert 512 + data <= size * block <= layer.stat().st_size
    ends = [made.index.stat().st_size, *((start + size) * block for size, start in slots)]
    assert all(start * block >= end for (_, start), end in zip(slots, ends, strict=False))


@needs_tool
def test_the_flat_disk_has_every_layer_in_its_place(
    image: Callable[..., Image], member: MakeMember, tmp_path: Path
) -> None:
    """Also where a layer is shorter than its index says, and where the index leaves a gap."""
    made = image([member("a", b"x")], [member("b", bytes(3000))], [member("c", b"z")])
    content = bytearray(made.index.read_bytes())
    _, slots = erofs.devices(made.index)
    table = struct.unpack_from("<H", content, 1024 + 88)[0] * 128
    gap = 5
    for number in (1, 2):
        struct.pack_into("<I", content, table + number * 128 + 68, slots[number][1] + gap)
    made.index.write_bytes(content)
    for layer in (made.layers[0], made.layers[2]):
        with layer.open("r+b") as tar:
            tar.truncate(1536)
    elsewhere = tmp_path / "elsewhere" / "root.erofs"
    lines = [line for line in erofs.flat_disk(made.index, elsewhere, made.layers).splitlines() if line[:3] == "RW "]
    first, second, third = (size for size, _ in slots)
    assert (first, third) == (4, 4)
    assert lines == [
        f'RW {len(content) // 512} FLAT "{elsewhere}" 0',
        f'RW 3 FLAT "{made.layers[0]}" 0',
        "RW 1 ZERO",
        f"RW {gap} ZERO",
        f'RW {second} FLAT "{made.layers[1]}" 0',
        f'RW 3 FLAT "{made.layers[2]}" 0',
        "RW 1 ZERO",
    ]


@needs_tool
def test_the_number_of_layers_must_fit(image: Callable[..., Image], member: MakeMember) -> None:
    made = image([member("a", b"x")], [member("b", b"y")])
    with pytest.raises(DiskError, match=r"root\.erofs joins 2 layers, not 1$"):
        erofs.flat_disk(made.index, made.index, made.layers[:1])


@needs_tool
@pytest.mark.parametrize("name", ['quo"te', "x" * 255 + "/" + "y" * 255])
def test_a_path_that_qemu_cannot_read(image: Callable[..., Image], member: MakeMember, name: str) -> None:
    made = image([member("a", b"x")])
    with pytest.raises(DiskError) as caught:
        erofs.flat_disk(made.index, Path("/cache", name), made.layers)
    assert caught.value.brief.startswith("QEMU cannot be told to read /cache/")
    assert "XDG_CACHE_HOME" in caught.value.resolution


@pytest.mark.parametrize("content", [b"", bytes(1151), bytes(4096)])
def test_what_is_no_index(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DiskError, match="x is no EROFS image"):
        erofs.devices(tmp_path / "x")


@needs_tool
def test_a_refusal_shows_the_tools_words(tmp_path: Path) -> None:
    (tmp_path / "layer.tar").write_bytes(b"\xff" * 512)
    with pytest.raises(DiskError) as caught:
        erofs.index_layer(tmp_path / "layer.tar", tmp_path / "index", soon())
    assert caught.value.brief == "could not index the layer layer.tar"
    assert "$ " in caught.value.details
    assert "--tar=i" in caught.value.details


def only_in_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the programs beside this Python and in the system's folders."""
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setattr("pytest_bootc.command._SYSTEM_FOLDERS", ())
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("mkfs.erofs (erofs-utils) 1.8.6\navailable compressors: lz4, lz4hc", (1, 8)),
        ("mkfs.erofs 1.5", (1, 5)),
        ("mkfs.erofs (erofs-utils) 1.10-gdeadbee", (1, 10)),
        ("mkfs.erofs: error while loading shared libraries: libuuid.so.1: cannot open", None),
        ("mkfs.erofs: needs libc 2.x", None),
        ("", None),
    ],
)
def test_the_version_of_the_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, version: tuple[int, int] | None
) -> None:
    program = tmp_path / "mkfs.erofs"
    program.write_text(f"#!/bin/sh\n/bin/cat <<'EOT' >&2\n{said}\nEOT\nexit 1\n")
    program.chmod(0o755)
    only_in_path(tmp_path, monkeypatch)
    assert erofs.tool_version(soon()) == version


def test_without_the_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_in_path(tmp_path, monkeypatch)
    assert erofs.tool_version(soon()) is None
    with pytest.raises(DiskError) as caught:
        erofs.merge([], tmp_path / "merged", soon())
    assert caught.value.brief == "mkfs.erofs is not installed"
    assert "scripts/setup" in caught.value.resolution


@needs_tool
def test_the_tool_of_this_machine_is_new_enough() -> None:
    version = erofs.tool_version(soon())
    assert version is not None
    assert version >= erofs.OLDEST_TOOL
