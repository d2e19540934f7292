"""The reader of layer tars: what it says of real archives, compared with the standard library, and what it refuses."""

from __future__ import annotations

import io
import random
import string
import subprocess
import tarfile
from pathlib import Path

import pytest

from pytest_bootc.disk.tar import EntryKind, TarEntry, scan
from pytest_bootc.errors import Blame, ImageError

SEEDS = range(12)
KINDS = {
    tarfile.REGTYPE: EntryKind.FILE,
    tarfile.DIRTYPE: EntryKind.FOLDER,
    tarfile.SYMTYPE: EntryKind.SYMLINK,
    tarfile.LNKTYPE: EntryKind.HARDLINK,
    tarfile.CHRTYPE: EntryKind.CHAR,
    tarfile.BLKTYPE: EntryKind.BLOCK,
    tarfile.FIFOTYPE: EntryKind.FIFO,
}
DEVICES = (EntryKind.CHAR, EntryKind.BLOCK)


@pytest.fixture
def scan_bytes(tmp_path):
    """Scan these bytes as the layer ``feedc0de``."""

    def run(content: bytes) -> list[TarEntry]:
        path = tmp_path / "feedc0de.tar"
        path.write_bytes(content)
        return scan(path)

    return run


@pytest.fixture
def refusal(scan_bytes):
    """What the reader says of these bytes."""

    def run(content: bytes) -> str:
        with pytest.raises(ImageError) as caught:
            scan_bytes(content)
        assert type(caught.value) is ImageError
        assert caught.value.blame is Blame.IMAGE
        assert caught.value.resolution
        return caught.value.brief

    return run


def by_the_library(content: bytes) -> list[TarEntry]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return [_by_the_library(info) for info in tar]


def _by_the_library(info: tarfile.TarInfo) -> TarEntry:
    kind = KINDS[info.type]
    return TarEntry(
        path=info.name.rstrip("/").removeprefix("./").strip("/"),
        kind=kind,
        mode=info.mode & 0o7777,
        uid=info.uid,
        gid=info.gid,
        mtime=info.mtime,
        size=info.size,
        target=info.linkname,
        offset=info.offset_data,
        xattrs={
            key.removeprefix("SCHILY.xattr."): value.encode("utf-8", "surrogateescape")
            for key, value in info.pax_headers.items()
            if key.startswith("SCHILY.xattr.")
        },
        device=(info.devmajor, info.devminor) if kind in DEVICES else (0, 0),
    )


def invented_name(dice: random.Random) -> str:
    """Up to three parts; short, long, and with letters that ustar has no room for."""
    letters = string.ascii_letters + string.digits + " .-_=\n\\é日"
    parts = ["".join(dice.choices(letters, k=dice.choice((1, 8, 40, 120)))) for _ in range(dice.randint(1, 3))]
    parts = [part if part.strip(".") and len(part.encode()) < 250 else "x" for part in parts]
    return "/".join(parts)


def invented_member(dice: random.Random, name: str, known: list[str]) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = dice.choice((tarfile.REGTYPE,) * 6 + tuple(KINDS))
    content = dice.randbytes(dice.choice((0, 1, 511, 512, 513, 5000))) if info.isreg() else b""
    info.size = len(content)
    info.mode = dice.choice((0o644, 0o755, 0o4755, 0o1777, 0))
    info.uid, info.gid = dice.choice((0, 1000, 2_097_151, 2_097_152, 60_000_000)), dice.choice((0, 65534))
    info.mtime = dice.choice((0, 1_700_000_000, 0o77777777777, 1 << 40, 1_700_000_000.5))
    if info.islnk():
        info.linkname = dice.choice(known)
    if info.issym():
        info.linkname = dice.choice(("../..", "/etc/passwd", "x" * 150, "é"))
    if info.isdev():
        info.devmajor, info.devminor = dice.choice(((1, 3), (8, 70_000)))
    if dice.random() < 0.2:
        info.pax_headers = {"SCHILY.xattr.user.test": dice.choice(("", "a=b\nc", "\0\1")), "comment": "12 x=y\n"}
    return info, content


def invented_tar(dice: random.Random, format: int) -> bytes:
    """A tar of files at the top of folders that do not clash, in a random order of kinds."""
    file = io.BytesIO()
    known: list[str] = []
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for number in range(60):
            name = f"{number}{invented_name(dice)}"
            info, content = invented_member(dice, name, known or [name])
            if info.islnk() and not known:
                continue
            if format == tarfile.GNU_FORMAT:
                info.mtime = int(info.mtime)
            tar.addfile(info, io.BytesIO(content))
            if info.isreg():
                known.append(name)
    return file.getvalue()


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
@pytest.mark.parametrize("seed", SEEDS)
def test_agrees_with_the_standard_library(scan_bytes, seed, format):
    content = invented_tar(random.Random(seed), format)
    assert scan_bytes(content) == by_the_library(content)


@pytest.mark.parametrize("format", ["ustar", "pax", "gnu"])
def test_agrees_on_what_gnu_tar_writes(tmp_path, scan_bytes, format):
    tree = tmp_path / "tree"
    folder = tree / ("long" * (10 if format == "ustar" else 20))
    folder.mkdir(parents=True)
    (folder / ("name" * 10)).write_bytes(b"x" * 1000)
    (folder / ("more" * 20)).write_bytes(b"y")
    (folder / "link").symlink_to("/etc/passwd")
    (tree / "hard").hardlink_to(folder / ("name" * 10))
    subprocess.run(["tar", "-C", tree, f"--format={format}", "-cf", tmp_path / "a.tar", "."], check=True)

    content = (tmp_path / "a.tar").read_bytes()
    entries = scan_bytes(content)

    for entry, other in zip(entries, by_the_library(content), strict=True):
        # The library keeps a target as written, and says "." of the root.
        assert entry.path == other.path.removeprefix(".").lstrip("/") or entry.path == other.path
        assert (entry.kind, entry.mode, entry.size, entry.offset) == (other.kind, other.mode, other.size, other.offset)
    hard = next(entry for entry in entries if entry.kind is EntryKind.HARDLINK)
    assert hard.target in {entry.path for entry in entries if entry.kind is EntryKind.FILE}


def test_damaged_archives_are_read_or_refused(tmp_path):
    """Bytes changed at random, most of them in headers whose checksums are made right again."""
    path, refusals = tmp_path / "damaged.tar", []
    archives = [invented_tar(random.Random(seed), tarfile.PAX_FORMAT) for seed in range(4)]
    for seed in range(400):
        dice = random.Random(seed)
        content = bytearray(dice.choice(archives))
        for _ in range(dice.randint(1, 4)):
            block = dice.randrange(len(content) // 512) * 512
            content[block + dice.randrange(512)] = dice.randrange(256)
            content[block : block + 512] = patched(bytes(content[block : block + 512]), 0, b"")
        path.write_bytes(content[: dice.randrange(len(content))] if dice.random() < 0.2 else content)
        try:
            scan(path)
        except ImageError as error:
            refusals.append(error.brief)
    assert 100 < len(refusals) < 400
    assert all(brief.isprintable() for brief in refusals)


def test_an_entry(tar_of, member, scan_bytes):
    info, content = member(
        "./usr//bin/./ping", b"ELF", mode=0o104755, uid=3, gid=4, mtime=1_700_000_000,
        pax_headers={"SCHILY.xattr.security.capability": "\1\0\0\2"},
    )  # fmt: skip
    archive = tar_of((info, content))

    (entry,) = scan_bytes(archive)

    assert entry == TarEntry(
        path="usr/bin/ping", kind=EntryKind.FILE, mode=0o4755, uid=3, gid=4, mtime=1_700_000_000, size=3, target="",
        offset=archive.index(b"ELF"), xattrs={"security.capability": b"\1\0\0\2"}, device=(0, 0),
    )  # fmt: skip


def test_names_become_paths_inside_the_image(tar_of, member, scan_bytes):
    names = ["/", "./etc/", "/etc/passwd", "etc/./group", "./etc//shadow"]
    kinds = [tarfile.DIRTYPE, tarfile.DIRTYPE, *[tarfile.REGTYPE] * 3]
    entries = scan_bytes(tar_of(*(member(name, type=kind) for name, kind in zip(names, kinds, strict=True))))
    assert [entry.path for entry in entries] == ["", "etc", "etc/passwd", "etc/group", "etc/shadow"]


def test_whiteouts(tar_of, member, scan_bytes):
    entries = scan_bytes(
        tar_of(member("etc/.wh.hosts"), member(".wh.opt"), member("var/.wh..wh..opq"), member(".wh..wh..opq"))
    )
    assert [(entry.kind, entry.path) for entry in entries] == [
        (EntryKind.WHITEOUT, "etc/hosts"),
        (EntryKind.WHITEOUT, "opt"),
        (EntryKind.OPAQUE, "var"),
        (EntryKind.OPAQUE, ""),
    ]


def test_what_is_allowed(tar_of, member, scan_bytes):
    archive = tar_of(
        member("etc", type=tarfile.DIRTYPE, mode=0o755),
        member(".wh.etc.old"),
        member("etc", type=tarfile.DIRTYPE, mode=0o700),  # the same folder again
        member("etc/.wh.motd"),
        member("etc/motd"),  # a file that is removed and made again
        member("etc/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("etc/away", type=tarfile.SYMTYPE, linkname="../../../../etc/shadow"),
        member("etc/loop", type=tarfile.SYMTYPE, linkname="loop"),
        member("etc/first", b"1"),
        member("etc/second", type=tarfile.LNKTYPE, linkname="./etc/first"),
        member("etc/third", type=tarfile.LNKTYPE, linkname="/etc/away"),
        member("etc/fourth", type=tarfile.LNKTYPE, linkname="usr/in/a/lower/layer"),
        member("a.wh.b/.whx"),
        member("e" * 255 + "/" + "é" * 127),
    )
    entries = {entry.path: entry for entry in scan_bytes(archive)}
    assert entries["etc/null"].device == (1, 3)
    assert entries["etc/away"].target == "../../../../etc/shadow"
    assert entries["etc/second"].target == "etc/first"
    assert entries["etc/third"].target == "etc/away"
    assert entries["etc/fourth"].target == "usr/in/a/lower/layer"
    assert len(entries) == 12


FOLDER, LINK, HARD = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
HOSTILE = {
    "traversal": ([("../etc/passwd", {})], "/../etc/passwd climbs out of its folder with '..'"),
    "inner traversal": ([("a/../../b", {})], "/a/../../b climbs out"),
    "absolute traversal": ([("/../b", {})], "/../b climbs out"),
    "below a link": (
        [("a", {"type": LINK, "linkname": "/etc"}), ("a/passwd", {})],
        "/a/passwd lies below 'a', which is a symlink of the same layer",
    ),
    "below a later link": ([("a/b/c", {}), ("a", {"type": LINK, "linkname": "/"})], "/a/b/c lies below 'a'"),
    "below a file": ([("a", {}), ("a/b", {"type": FOLDER})], "lies below 'a', which is a file of the same layer"),
    "whiteout below a link": ([("a", {"type": LINK, "linkname": "/"}), ("a/.wh.etc", {})], "/a/etc lies below 'a'"),
    "opaque link": ([("a", {"type": LINK, "linkname": "/"}), ("a/.wh..wh..opq", {})], "/a is emptied by an opaque"),
    "escaping hard link": (
        [("a", {"type": HARD, "linkname": "../../etc/shadow"})],
        "/a is a hard link that leads out of the image, to '../../etc/shadow'",
    ),
    "hard link to a later file": (
        [("a", {"type": HARD, "linkname": "b"}), ("b", {})],
        "/a is a hard link to 'b', which comes later in the layer",
    ),
    "hard link to a folder": (
        [("b", {"type": FOLDER}), ("a", {"type": HARD, "linkname": "b"})],
        "/a is a hard link to the folder 'b'",
    ),
    "hard link to the root": ([("a", {"type": HARD, "linkname": "/"})], "/a is a hard link to the folder ''"),
    "hard link to itself": ([("a", {"type": HARD, "linkname": "a"})], "/a is a hard link to itself"),
    "hard link to a whiteout": ([("a", {"type": HARD, "linkname": ".wh.b"})], "/a is a hard link to a whiteout"),
    "link to nothing": ([("a", {"type": LINK})], "/a is a link with an empty or impossible target"),
    "twice": ([("a", {}), ("./a", {})], "/a is in the layer twice, as file and as file"),
    "folder and file": ([("a", {"type": FOLDER}), ("a", {})], "/a is in the layer twice, as folder and as file"),
    "removed twice": ([(".wh.a", {}), (".wh.a", {})], "/a is removed by a whiteout, and named before that"),
    "added, then removed": ([("a", {}), (".wh.a", {})], "/a is removed by a whiteout, and named before that"),
    "removed and made again": ([(".wh.a", {}), ("a", {"type": FOLDER})], "/a is a folder that one layer removes"),
    "removed and used": ([(".wh.a", {}), ("a/b/c", {})], "/a is a folder that one layer removes and makes again"),
    "emptied twice": ([("a/.wh..wh..opq", {}), ("./a/.wh..wh..opq", {})], "/a has two opaque whiteouts"),
    "whiteout of nothing": ([("a/.wh.", {})], "/a/.wh. is a whiteout of no possible name"),
    "whiteout of dot": ([("a/.wh..", {})], "/a/.wh.. is a whiteout of no possible name"),
    "whiteout of dot dot": ([("a/.wh...", {})], "is a whiteout of no possible name"),
    "storage driver's whiteout": ([(".wh..wh.plnk", {})], "is a whiteout of no possible name"),
    "whiteout folder": ([("a/.wh.b", {"type": FOLDER})], "/a/.wh.b/ is named like a whiteout and is no empty file"),
    "in a whiteout folder": ([("a/.wh.b/c", {})], "/a/.wh.b/c lies in a folder that is named like a whiteout"),
    "root as a file": ([("./.", {})], "is a file in the place of the root folder"),
    "file with a slash": ([("a/", {"type": tarfile.REGTYPE})], "/a/ is a file whose name ends with a slash"),
    "path too long": ([("a/" * 2048 + "b", {})], "has a path of 4097 bytes; the limit is 4096"),
    "name too long": ([("é" * 128, {})], "has a name of more than 255 bytes"),
    "pre-POSIX": ([("a", {"type": tarfile.AREGTYPE})], "/a is of the kind NUL, from before POSIX"),
    "unknown kind": ([("a", {"type": b"M"})], "/a is of the unknown kind 'M'"),
    "sparse, PAX": ([("a", {"pax_headers": {"GNU.sparse.major": "1"}})], "/a is a sparse file of GNU tar"),
    "nameless": ([("", {})], "/innocent is followed by a header without a name"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_members(tar_of, member, refusal, case):
    members, message = HOSTILE[case]
    archive = tar_of(member("innocent", b"bystander"), *(member(name, **header) for name, header in members))
    said = refusal(archive)
    assert said.startswith("layer feedc0de")
    assert message in said


def test_content_where_none_may_be(tar_of, member, refusal):
    assert "/.wh.a is named like a whiteout and is no empty file" in refusal(tar_of(member(".wh.a", b"x")))
    for kind, word in ((LINK, "symlink"), (HARD, "hard link"), (tarfile.FIFOTYPE, "fifo"), (FOLDER, "folder")):
        archive = patched(tar_of(member("a", type=kind, linkname="b"), member("c")), 124, b"00000001000\0")
        assert f" is a {word} with 512 bytes of content" in refusal(archive)


def test_what_gnu_tar_makes_of_holes(tmp_path, refusal):
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(1 << 20)
    for form in ("gnu", "pax"):
        subprocess.run(
            ["tar", "-C", tmp_path, "--sparse", f"--format={form}", "-cf", tmp_path / "a.tar", "holes"], check=True
        )
        assert "is a sparse file of GNU tar" in refusal((tmp_path / "a.tar").read_bytes())


def test_incremental_gnu_archives(tmp_path, refusal):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_text("a")
    tar = ["tar", "-C", tmp_path, "--format=gnu", "-g", tmp_path / "state", "-cf", tmp_path / "a.tar", "tree"]
    subprocess.run(tar, check=True)
    assert "incremental GNU archive" in refusal((tmp_path / "a.tar").read_bytes())


def patched(archive: bytes, at: int, value: bytes) -> bytes:
    """The archive with other bytes in its first header, whose checksum is made right again."""
    header = bytearray(archive[:512])
    header[at : at + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + archive[512:]


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, b"\0" * 8, "layer feedc0de begins with a header without a name"),
        (100, b"0000_644", "a number in its header that cannot be read"),
        (100, b"00000644", "a number in its header that cannot be read"),  # no end: some read on
        (108, b"-0000001", "a number in its header that cannot be read"),
        (108, b"\xff" * 8, "a number in its header that cannot be read"),
        (116, b"0000008\0", "a number in its header that cannot be read"),
        (124, b"\x80" + b"\0" * 5 + b"\1" + b"\0" * 5, "is truncated"),
        (136, b"junk", "a number in its header that cannot be read"),
        (257, b"wrong", "neither ustar, PAX nor GNU"),
    ],
)
def test_odd_headers(tar_of, member, refusal, at, value, message):
    assert message in refusal(patched(tar_of(member("a-name-b")), at, value))


def test_the_checksum_is_checked(tar_of, member, refusal):
    archive = bytearray(tar_of(member("a"), member("b")))
    archive[512] += 1
    assert "layer feedc0de: /a is followed by a header with a wrong checksum" in refusal(bytes(archive))


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (b"8 path=a\n", "malformed PAX header"),
        (b"11 path=a/b\n", "malformed PAX header"),
        (b"0 path=a\n", "malformed PAX header"),
        (b"-1 path=a\n", "malformed PAX header"),
        (b"999 path=a\n", "malformed PAX header"),
        (b"8 pathab\n", "malformed PAX header"),
        (b"6 =ab\n", "malformed PAX header"),
        (b"path=a\n", "malformed PAX header"),
        (b"10 uid=-1\n", "bad uid"),
        (b"11 size=x1\n", "bad size"),
        (b"12 mtime=1e\n", "bad mtime"),
        (b"11 path=a\0\n", "a NUL in it"),
        (b"8 path=\n", "an empty name"),
        (b"13 path=../x\n", "climbs out"),
    ],
)
def test_bad_pax_records(refusal, records, message):
    assert message in refusal(extended(b"x", records) + plain("a") + bytes(1024))


def extended(kind: bytes, content: bytes) -> bytes:
    info = tarfile.TarInfo("extended")
    info.type, info.size = kind, len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


def plain(name: str) -> bytes:
    return tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT)


def test_extended_headers_that_contradict_each_other(refusal, scan_bytes):
    path = extended(b"x", b"10 path=b\n")
    assert "two extended headers for one member" in refusal(path + path + plain("a") + bytes(1024))
    assert "two extended headers for one member" in refusal(extended(b"L", b"c\0") + path + plain("a") + bytes(1024))
    assert [entry.path for entry in scan_bytes(path + plain("a") + plain("c") + bytes(1024))] == ["b", "c"]
    assert "it ends after an extended header" in refusal(path + bytes(1024))


def test_global_headers(refusal, scan_bytes):
    comment = extended(b"g", b"13 comment=x\n")
    assert [entry.path for entry in scan_bytes(comment + plain("a") + bytes(1024))] == ["a"]
    for record in (b"9 path=b\n", b"8 uid=0\n", b"25 SCHILY.xattr.user.a=b\n", b"20 GNU.sparse.map=0\n"):
        assert len(record) == int(record.split()[0])
        assert "global header" in refusal(extended(b"g", record) + plain("a") + bytes(1024))


def test_extended_headers_have_a_limit(refusal):
    content = b"x" * ((4 << 20) + 1)
    assert "an extended header of 4194305 bytes" in refusal(extended(b"L", content) + plain("a") + bytes(1024))


def test_truncation(tar_of, member, refusal, scan_bytes):
    archive = tar_of(member("a", b"x" * 700), member("b", b"y" * 700))
    assert "/b is truncated: 188 bytes are missing" in refusal(archive[: 512 * 5])
    assert "/a is truncated: it ends within a header" in refusal(archive[: 512 * 3 + 100])
    # Without any blocks of zeros at its end it is still whole, and what comes after them does not matter.
    assert len(scan_bytes(archive[: 512 * 6])) == 2
    assert len(scan_bytes(archive[: 512 * 6] + bytes(1024) + b"garbage" * 99)) == 2
    assert scan_bytes(b"") == []
    assert "a single block of zeros with more members after it" in refusal(bytes(512) + archive)


def test_padding_is_not_taken_for_content(tar_of, member, tmp_path):
    path = tmp_path / "padded.tar"
    path.write_bytes(tar_of(member("a", b"x" * 300))[: 512 + 200] + bytes(312))
    assert len(scan(path)) == 1
    with pytest.raises(ImageError, match="/a is truncated: 100 bytes are missing"):
        scan(path, size=712)


def test_messages_can_be_printed(refusal):
    said = refusal(extended(b"x", b"13 path=\xff\n\x1b..\n"[:13]) + plain("a") + bytes(1024))
    assert said.isprintable()
    said = refusal(extended(b"L", b"\xff\x1b[31m/..") + plain("a") + bytes(1024))
    assert said == r"layer feedc0de: /\udcff\x1b[31m/.. climbs out of its folder with '..'"


def test_bytes_that_are_not_utf8_survive(scan_bytes, tmp_path: Path):
    (entry,) = scan_bytes(extended(b"L", b"caf\xe9") + plain("a") + bytes(1024))
    assert entry.path.encode("utf-8", "surrogateescape") == b"caf\xe9"
