"""File systems made by our scripts, read back by the kernel, by debugfs, and checked by e2fsck."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import struct
import subprocess
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pytest_bootc import command
from pytest_bootc.command import find_program
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk import ext4
from pytest_bootc.disk.ext4 import Ext4, make_ext4
from pytest_bootc.disk.tar import EntryKind, scan
from pytest_bootc.disk.tree import Tree
from pytest_bootc.errors import Blame, ConfigError, DiskError

Member = tuple[tarfile.TarInfo, bytes]
MakeMember = Callable[..., Member]
SHAPE = Ext4("test", 600)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")

TYPES = {
    EntryKind.FILE: stat.S_IFREG,
    EntryKind.FOLDER: stat.S_IFDIR,
    EntryKind.SYMLINK: stat.S_IFLNK,
    EntryKind.CHAR: stat.S_IFCHR,
    EntryKind.BLOCK: stat.S_IFBLK,
    EntryKind.FIFO: stat.S_IFIFO,
}
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
# user::rw-, user:7:r--, group::r--, mask::r--, other::--- (the form that system calls have)
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 6, 0xFFFFFFFF), (2, 4, 7), (4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
)


def text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def xattr(**values: bytes) -> dict[str, Any]:
    return {"pax_headers": {f"SCHILY.xattr.{name.replace('__', '.')}": text(value) for name, value in values.items()}}


@pytest.fixture
def tree(tmp_path: Path, tar_of: Callable[..., bytes]) -> Callable[..., Tree]:
    """A tree of one layer with these members."""

    def make(*members: Member) -> Tree:
        layer = tmp_path / "layer.tar"
        layer.write_bytes(tar_of(*members))
        made = Tree([layer])
        made.apply(scan(layer))
        return made

    return make


@pytest.fixture
def oddities(member: MakeMember) -> list[Member]:
    """Everything that a layer may hold and ext4 can keep."""
    folder, link, hard = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
    names = [
        "with space",
        " lead",
        'quo"te"s',
        "it's",
        "back\\slash",
        "$(x)`y`",
        "ünïcode-日本",
        "<12>",
        "-f",
        "#x",
        "*",
    ]
    deep = "/".join("d" * 200 for _ in range(18))
    return [
        member("v", type=folder, mode=0o751, uid=3, gid=4, mtime=1_000_000_000),
        *(member(f"v/names/{name}", os.fsencode(name)) for name in [*names, "n" * 255, "\udcff\udcfe"]),
        member(f"v/{deep}/file", b"deep", mtime=7),
        member("v/empty"),
        member("v/block", b"x" * 4096),
        member("v/large", bytes(range(256)) * 20_000),
        member("v/zeros", bytes(3 << 20)),
        member("v/setuid", b"s", mode=0o4755),
        member("v/setgid", b"s", mode=0o2750, gid=50),
        member("v/none", b"s", mode=0),
        member("v/sticky", type=folder, mode=0o3777),
        member("v/owned", b"o", uid=100_000, gid=4_294_967_294),
        member("v/epoch", mtime=0),
        member("v/before", mtime=-86_400),
        member("v/after-2038", mtime=5_000_000_000),
        member("v/last", mtime=15_032_385_535),
        member("v/link", type=link, linkname="names/with space"),
        member("v/dangling", type=link, linkname="/no/whe re", uid=9, gid=8, mtime=99),
        *(member(f"v/link-{size}", type=link, linkname="t" * size) for size in (59, 60, 61, 4000)),
        member("v/null", type=tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3),
        member("v/disk", type=tarfile.BLKTYPE, mode=0o660, gid=6, devmajor=259, devminor=65535),
        member("v/fifo", type=tarfile.FIFOTYPE, mode=0o600),
        member("v/one", b"linked", mode=0o640, uid=5, mtime=12345),
        member("v/f/two", type=hard, linkname="v/one"),
        member("v/f/three", type=hard, linkname="v/f/two"),
        member("v/l1", type=link, linkname="x"),
        member("v/l2", type=hard, linkname="v/l1"),
        member("v/capable", b"c", mode=0o755, uid=0, **xattr(security__capability=CAPABILITY)),
        member("v/acl", b"a", mode=0o640, **xattr(system__posix_acl_access=ACL)),
        member("v/user", b"u", **xattr(user__one=b"1", user__two=b"two words", user__empty=b"")),
        member("v/odd", b"u", pax_headers={"SCHILY.xattr.user.a b\"c": "v", "SCHILY.xattr.user.bytes": "\udcff\x01"}),
        member("v/big-attribute", b"u", **xattr(user__a=b"a", user__big=b"v" * 3900, user__z=b"z" * 40)),
        member("v/attributes", b"u", pax_headers={f"SCHILY.xattr.user.{n}": "v" * 12 for n in range(90)}),
        member("v/f", type=folder, mode=0o700, mtime=42, **xattr(user__folder=b"yes", trusted__x=b"t")),
    ]  # fmt: skip


def make(tree: Tree, folder: str, image: Path, shape: Ext4 = SHAPE) -> list[str]:
    losses = make_ext4(tree, folder, image, shape, Deadline.after(120))
    checked = subprocess.run(
        [find_program("e2fsck", resolution="install e2fsprogs"), "-f", "-n", image], capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stdout.decode()
    assert list(image.parent.glob(f"{image.name}.*")) == []
    return losses


@contextmanager
def mounted(image: Path) -> Iterator[Path]:
    target = image.with_name("mounted")
    target.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop,ro,noload", image, target], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True)


def seen(root: Path) -> tuple[dict[str, tuple[object, ...]], set[frozenset[str]]]:
    """What the kernel shows of every file, and which names are one file."""
    files: dict[str, tuple[object, ...]] = {}
    linked: defaultdict[int, set[str]] = defaultdict(set)
    for folder, folders, names in os.walk(os.fsencode(root)):
        for raw in [b"", *folders, *names] if Path(os.fsdecode(folder)) == root else [*folders, *names]:
            path = Path(os.fsdecode(os.path.join(folder, raw)))  # noqa: PTH118
            inside = "" if path == root else str(path.relative_to(root))
            if inside == "lost+found":
                continue
            info = path.lstat()
            kind, what, device = stat.S_IFMT(info.st_mode), "", (0, 0)
            if kind == stat.S_IFREG:
                what = hashlib.sha256(path.read_bytes()).hexdigest()
            elif kind == stat.S_IFLNK:
                what = str(path.readlink())
            elif kind in (stat.S_IFCHR, stat.S_IFBLK):
                device = os.major(info.st_rdev), os.minor(info.st_rdev)
            names_of = sorted(os.listxattr(path, follow_symlinks=False))
            attributes = {name: os.getxattr(path, name, follow_symlinks=False) for name in names_of}
            mode = stat.S_IMODE(info.st_mode)
            files[inside] = (kind, mode, info.st_uid, info.st_gid, int(info.st_mtime), what, device, attributes)
            if kind != stat.S_IFDIR:
                linked[info.st_ino].add(inside)
                assert info.st_nlink == 1 or len(linked[info.st_ino]) <= info.st_nlink
    groups = {frozenset(names) for names in linked.values() if len(names) > 1}
    return files, groups


def wanted(tree: Tree, folder: str) -> tuple[dict[str, tuple[object, ...]], set[frozenset[str]]]:
    """What the tree says of every file below a folder, in the same form."""
    files: dict[str, tuple[object, ...]] = {}
    linked: defaultdict[int, set[str]] = defaultdict(set)
    for path, node in tree.below(folder):
        entry, inside = node.entry, path[len(folder) :].lstrip("/")
        what = entry.target if entry.kind is EntryKind.SYMLINK else ""
        if entry.kind is EntryKind.FILE:
            with tree.layers[node.layer].open("rb") as tar:
                tar.seek(entry.offset)
                what = hashlib.sha256(tar.read(entry.size)).hexdigest()
        mode = 0o777 if entry.kind is EntryKind.SYMLINK else entry.mode
        attributes = dict(sorted(entry.xattrs.items()))
        kind, seconds = TYPES[entry.kind], int(entry.mtime)
        files[inside] = (kind, mode, entry.uid, entry.gid, seconds, what, entry.device, attributes)
        if entry.kind is not EntryKind.FOLDER:
            linked[id(entry)].add(inside)
    return files, {frozenset(names) for names in linked.values() if len(names) > 1}


@needs_root
def test_the_kernel_reads_back_what_the_tree_says(
    tree: Callable[..., Tree], oddities: list[Member], tmp_path: Path
) -> None:
    merged = tree(*oddities)
    assert make(merged, "v", tmp_path / "image") == []
    with mounted(tmp_path / "image") as root:
        files, links = seen(root)
        assert (root / "one").lstat().st_nlink == 3
        assert (root / "l1").lstat().st_nlink == 2
        assert (root / "large").lstat().st_nlink == 1
    expected, expected_links = wanted(merged, "v")
    assert sorted(files.keys() ^ expected.keys()) == []
    different = {path: (files[path], fields) for path, fields in expected.items() if files[path] != fields}
    assert different == {}
    assert links == expected_links == {frozenset({"one", "f/two", "f/three"}), frozenset({"l1", "l2"})}
    assert len(files) > 50


@needs_root
def test_filling_in_batches_gives_the_same(
    tree: Callable[..., Tree], oddities: list[Member], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = tree(*oddities)
    held: list[int] = []
    fill = ext4._debugfs

    def watched(image: Path, scratch: Path, commands: list[str], deadline: Deadline) -> None:
        held.append(sum(file.stat().st_blocks * 512 for file in scratch.iterdir()))
        fill(image, scratch, commands, deadline)

    monkeypatch.setattr(ext4, "_debugfs", watched)
    monkeypatch.setattr(ext4, "_BATCH", 4096)
    assert make(merged, "v", tmp_path / "image") == []
    assert len(held) > 3
    assert sorted(held)[-2] < 500_000  # all but the one with the large file
    with mounted(tmp_path / "image") as root:
        assert seen(root) == wanted(merged, "v")


@needs_root
def test_the_root_itself(tree: Callable[..., Tree], member: MakeMember, tmp_path: Path) -> None:
    make(tree(member("usr/file", b"x")), "", tmp_path / "one")
    with mounted(tmp_path / "one") as root:
        files, _ = seen(root)
        assert sorted(files) == ["", "usr", "usr/file"]
        assert files[""][:5] == (stat.S_IFDIR, 0o755, 0, 0, 0)
    listed = tree(member("./", type=tarfile.DIRTYPE, mode=0o711, gid=9, mtime=77), member("a"))
    make(listed, "", tmp_path / "two")
    with mounted(tmp_path / "two") as root:
        assert seen(root)[0][""][:5] == (stat.S_IFDIR, 0o711, 0, 9, 77)


def debugfs(image: Path, request: str) -> str:
    program = find_program("debugfs", resolution="install e2fsprogs")
    return subprocess.run([program, "-R", request, image], capture_output=True, check=True).stdout.decode()


def test_debugfs_reads_back_one_file(tree: Callable[..., Tree], member: MakeMember, tmp_path: Path) -> None:
    """What can be seen without being root."""
    image = tmp_path / "image"
    header = {"mode": 0o4750, "uid": 100_000, "gid": 70_000, "mtime": 5_000_000_000}
    file = member("v/a b", b"content", **header, **xattr(user__note=b"kept", security__capability=CAPABILITY))
    make(tree(file, member("v/c", type=tarfile.LNKTYPE, linkname="v/a b")), "v", image)
    shown = debugfs(image, 'stat "/c"')
    assert "Type: regular    Mode:  04750" in shown
    assert re.search(r"User: 100000 +Group: 70000 .*Size: 7$", shown, re.MULTILINE)
    assert "Links: 2 " in shown
    assert re.search(r"mtime: 0x2a05f200:\w+ -- .* 2128$", shown, re.MULTILINE)
    assert 'user.note (4) = "kept"' in shown
    assert "security.capability (20) = 01 00 00 02 00 20 00 00" in shown
    assert debugfs(image, 'cat "/a b"') == "content"


def dumped(image: Path) -> tuple[dict[str, str], str]:
    """What dumpe2fs says, by field and as it is."""
    program = find_program("dumpe2fs", resolution="install e2fsprogs")
    shown = subprocess.run([program, image], capture_output=True, check=True).stdout.decode()
    return dict(re.findall(r"^([A-Z][\w ]+):\s+(.+)$", shown, re.MULTILINE)), shown


def test_the_shape_is_as_asked(tree: Callable[..., Tree], member: MakeMember, tmp_path: Path) -> None:
    image = tmp_path / "image"
    make(tree(member("v/f", bytes(5000))), "v", image, Ext4("a label", 1024, inode_ratio_kib=16))
    told, shown = dumped(image)
    assert told["Filesystem volume name"] == "a label"
    assert (told["Block size"], told["Block count"]) == ("4096", "262144")
    assert (told["Inode count"], told["Inode size"]) == ("65536", "256")
    assert told["Reserved block count"] == "0"
    assert told["Total journal size"] == "64M"
    assert told["Filesystem state"] == "clean"
    assert {"has_journal", "extent", "metadata_csum"} <= set(told["Filesystem features"].split())
    assert "ITABLE_ZEROED" not in shown  # tables that are not written take no space
    assert image.stat().st_size == 1 << 30
    assert image.stat().st_blocks * 512 < 8 << 20


def test_a_small_file_system_is_made_like_a_large_one(
    tree: Callable[..., Tree], member: MakeMember, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    make(tree(member("v/f")), "v", image, Ext4("test", 140))
    told, _ = dumped(image)
    assert (told["Block size"], told["Inode size"]) == ("4096", "256")


def test_a_file_system_that_cannot_be_made(tree: Callable[..., Tree], member: MakeMember, tmp_path: Path) -> None:
    image = tmp_path / "image"
    with pytest.raises(DiskError) as caught:
        make_ext4(tree(member("v/f")), "v", image, Ext4("test", 16), Deadline.after(60))
    assert caught.value.brief == "could not make the file system test"
    assert "journal" in caught.value.details
    assert not image.with_name("image.content").exists()


def test_a_folder_that_is_missing_or_a_link(tree: Callable[..., Tree], member: MakeMember, tmp_path: Path) -> None:
    merged = tree(member("x/f", b"1"), member("v", type=tarfile.SYMTYPE, linkname="x"))
    assert make(merged, "nothing", tmp_path / "one") == []
    assert debugfs(tmp_path / "one", "ls -p /").count("/") > 0
    assert make(merged, "v", tmp_path / "two") == []
    assert debugfs(tmp_path / "two", "cat /f") == "1"


def test_what_cannot_be_kept_is_told(tree: Callable[..., Tree], member: MakeMember, tmp_path: Path) -> None:
    image = tmp_path / "image"
    merged = tree(
        member("v/new\nline", b"x"),
        member("v/good", type=tarfile.LNKTYPE, linkname="v/new\nline"),
        member("v/tab\there/inner", b"x"),
        member("v/link", type=tarfile.SYMTYPE, linkname="esc\x1b"),
        member("v/device", type=tarfile.CHRTYPE, devmajor=1, devminor=65536),
        member("v/attribute", b"x", pax_headers={"SCHILY.xattr.user.a\nb": "1", "SCHILY.xattr.user.kept": "2"}),
        member("v/long", b"x", **xattr(user__a=b"v" * 2000, user__b=b"v" * 2100, user__c=b"c")),
        member("v/far", mtime=15_032_385_536),
    )
    assert make(merged, "v", image) == [
        "'v/device' is left out: its device number is too large",
        "'v/link' is left out: its name or target has a control character",
        "'v/new\\nline' is left out: its name or target has a control character",
        "'v/tab\\there' is left out: its name or target has a control character",
        "'v/tab\\there/inner' is left out: its name or target has a control character",
        "'/attribute' loses its extended attribute 'user.a\\nb'",
        "'/long' loses its extended attribute 'user.b'",
    ]
    assert debugfs(image, "cat /good") == "x"
    assert 'user.kept (1) = "2"' in debugfs(image, "stat /attribute")
    assert 'user.c (1) = "c"' in debugfs(image, "stat /long")
    assert re.search(r"mtime: .* 2446$", debugfs(image, "stat /far"), re.MULTILINE)


def test_a_lost_and_found_of_the_image_is_kept(tree: Callable[..., Tree], member: MakeMember, tmp_path: Path) -> None:
    folder = member("v/lost+found", type=tarfile.DIRTYPE, mode=0o711, uid=5)
    make(tree(folder, member("v/lost+found/f", b"x")), "v", tmp_path / "image")
    shown = debugfs(tmp_path / "image", "stat /lost+found")
    assert "Mode:  0711 " in shown
    assert re.search(r"^User: +5 ", shown, re.MULTILINE)
    assert debugfs(tmp_path / "image", "cat /lost+found/f") == "x"


def test_a_huge_file_stays_sparse(tmp_path: Path, member: MakeMember) -> None:
    size = (300 << 20) + 12_345
    info, _ = member("v/huge")
    info.size = size
    layer = tmp_path / "layer.tar"
    with layer.open("wb") as tar:
        tar.write(info.tobuf(tarfile.PAX_FORMAT))
        tar.seek(size - 3, os.SEEK_CUR)
        tar.write(b"end")
        tar.truncate(512 + size + -size % 512 + 1024)
    merged = Tree([layer])
    merged.apply(scan(layer))
    image = tmp_path / "image"
    make(merged, "v", image, Ext4("test", 1024))
    assert re.search(rf"Size: {size}$", debugfs(image, "stat /huge"), re.MULTILINE)
    assert image.stat().st_blocks * 512 < 20 << 20
    assert debugfs(image, "blocks /huge").split() != []


def test_a_thousand_files(tree: Callable[..., Tree], member: MakeMember, tmp_path: Path) -> None:
    merged = tree(*(member(f"v/{n % 10}/{n}", str(n).encode(), uid=n) for n in range(1000)))
    make(merged, "v", tmp_path / "image")
    listed = re.findall(r"/\d+/100644/(\d+)/0/(\d+)/\d*/", debugfs(tmp_path / "image", "ls -p /7"))
    assert sorted(listed) == sorted((str(n), str(n)) for n in range(7, 1000, 10))


def test_more_than_fits(tree: Callable[..., Tree], member: MakeMember, tmp_path: Path) -> None:
    image = tmp_path / "image"
    merged = tree(member("v/f", b"x" * (70 << 20)))
    with pytest.raises(DiskError) as caught:
        make_ext4(merged, "v", image, Ext4("test", 130), Deadline.after(60))
    assert caught.value.brief == "could not fill the file system image"
    assert "Could not allocate block" in caught.value.details
    assert caught.value.blame is Blame.LAB
    assert not image.with_name("image.content").exists()


def test_a_layer_that_has_shrunk(tree: Callable[..., Tree], member: MakeMember, tmp_path: Path) -> None:
    merged = tree(member("v/f", b"x" * 5000))
    with (tmp_path / "layer.tar").open("r+b") as tar:
        tar.truncate(2000)
    with pytest.raises(DiskError, match="is shorter than its own index says"):
        make_ext4(merged, "v", tmp_path / "image", SHAPE, Deadline.after(60))


def test_without_e2fsprogs(
    tree: Callable[..., Tree], member: MakeMember, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(command, "_SYSTEM_FOLDERS", ())
    assert shutil.which("mke2fs") is None
    with pytest.raises(ConfigError) as caught:
        make_ext4(tree(member("v/f")), "v", tmp_path / "image", SHAPE, Deadline.after(60))
    assert (caught.value.brief, caught.value.resolution) == ("mke2fs is not installed", "install e2fsprogs")
    assert not (tmp_path / "image.content").exists()
