"""Two layers with everything that layers of real images may hold: one to be changed, and the one that changes it.

All of it lies below /usr/share/pytest-bootc-image, but for one file in /var (seeds of /var must reach the guest's).
"""

from __future__ import annotations

import dataclasses
import io
import struct
import tarfile
import tempfile
from pathlib import Path

import oci
from oci import OPAQUE, WHITEOUT, Compression, Entry

OWN = "usr/share/pytest-bootc-image"
LONG_NAME = "long-" + "x" * 195
DEEP = "/".join(f"deep-{number:02}-{'y' * 40}" for number in range(6))
ZERO_BYTES = 32 << 20
SOURCE_DATE_EPOCH = 1_767_225_600  # 2026-01-01: no file of the images is younger
MTIME = 1_700_000_000
CAP_NET_RAW, CAP_SETUID = 13, 7


def file_capability(*numbers: int) -> bytes:
    """The value of `security.capability`: permitted and effective (capabilities(7), vfs_cap_data revision 2)."""
    bits = sum(1 << number for number in numbers)
    return struct.pack("<5I", 0x02000001, bits & 0xFFFFFFFF, 0, bits >> 32, 0)


def below(busybox: Entry) -> list[Entry]:
    """The lower layer: hard links, attributes, odd names, and files that `above` hides or replaces."""
    program = oci.content(busybox)
    entries = [
        Entry("busybox.oci.tar", data=container_archive(program)),
        Entry("whiteout/gone", data=b"hidden by the next layer\n"),
        Entry("whiteout/kept", data=b"kept\n"),
        Entry("whiteout/folder/inner/file", data=b"hidden with its folder\n"),
        Entry("opaque/old", data=b"hidden by the opaque folder\n"),
        Entry("opaque/sub/old", data=b"hidden by the opaque folder\n"),
        Entry("links/a/first", data=b"linked\n", inode="kept"),
        Entry("links/b/second", data=b"linked\n", inode="kept"),
        Entry("links/c/target-goes", data=b"halved\n", inode="halved"),
        Entry("links/d/stays", data=b"halved\n", inode="halved"),
        Entry("links/e/stays", data=b"other half\n", inode="other half"),
        Entry("links/f/partner-goes", data=b"other half\n", inode="other half"),
        Entry("replaced/file-by-folder", data=b"a file\n"),
        Entry("replaced/folder-by-file/file", data=b"in a folder\n"),
        oci.symlink("replaced/link-by-file", "../whiteout/kept"),
        Entry("replaced/mode", data=b"mode\n", mode=0o600),
        Entry("attributes/user", data=b"attributes\n", xattrs={"user.one": b"1", "user.binary": bytes(range(256))}),
        dataclasses.replace(oci.directory("attributes/folder"), xattrs={"user.folder": b"yes"}),
        Entry(
            "attributes/ping", data=program, mode=0o755, xattrs={"security.capability": file_capability(CAP_NET_RAW)}
        ),
        Entry(
            "attributes/setuid-capability",
            data=b"#!/bin/true\n",
            mode=0o755,
            xattrs={"security.capability": file_capability(CAP_SETUID, CAP_NET_RAW)},
        ),
        Entry("modes/setuid", data=b"#!/bin/true\n", mode=0o4755),
        Entry("modes/setgid", data=b"#!/bin/true\n", mode=0o2755, gid=50),
        Entry("modes/none", data=b"unreadable\n", mode=0o000),
        Entry("modes/owned", data=b"owned\n", uid=1234, gid=65534),
        oci.directory("modes/sticky", 0o3777),
        Entry(f"names/{LONG_NAME}", data=b"long name\n"),
        Entry(f"names/{DEEP}/file", data=b"long path\n"),
        Entry("names/ünïcode-日本", data=b"not ASCII\n"),
        Entry("names/with space and\\x2dbackslash", data=b"spaces\n"),
        oci.symlink("names/long-link", f"{DEEP}/file"),
        oci.symlink("names/unicode-link", "ünïcode-日本"),
        oci.symlink("names/dangling", "/nowhere/at/all"),
        Entry("empty"),
    ]
    seed = Entry(
        "var/lib/pytest-bootc-image/seed",
        data=b"seed\n",
        mode=0o640,
        gid=65534,
        xattrs={"user.seed": b"kept"},
        mtime=MTIME,
    )
    return _complete([*(_own(entry) for entry in entries), seed])


def above() -> list[Entry]:
    """The upper layer: hides and replaces what `below` brought, and adds a large file of zeros."""
    entries = [
        Entry(f"whiteout/{WHITEOUT}gone"),
        Entry(f"whiteout/{WHITEOUT}folder"),
        Entry(f"opaque/{OPAQUE}"),
        Entry("opaque/new", data=b"new\n"),
        Entry(f"links/c/{WHITEOUT}target-goes"),
        Entry(f"links/f/{WHITEOUT}partner-goes"),
        Entry("replaced/file-by-folder/file", data=b"in a folder\n"),
        Entry("replaced/folder-by-file", data=b"a file\n"),
        Entry("replaced/link-by-file", data=b"no longer a link\n"),
        Entry("replaced/mode", data=b"mode\n", mode=0o644),
        Entry("zeros", data=bytes(ZERO_BYTES)),
    ]
    return _complete([_own(entry) for entry in entries])


def _own(entry: Entry) -> Entry:
    return dataclasses.replace(entry, path=f"{OWN}/{entry.path}", mtime=MTIME)


def _complete(entries: list[Entry]) -> list[Entry]:
    tree = {entry.path: entry for entry in entries}
    for path in list(tree):
        for folder in oci.parents(path):
            mtime = MTIME if folder.startswith(OWN) else SOURCE_DATE_EPOCH
            tree.setdefault(folder, dataclasses.replace(oci.directory(folder), mtime=mtime))
    return list(tree.values())


def container_archive(busybox: bytes) -> bytes:
    """A container image with nothing but busybox, as an OCI archive (`podman load --input`)."""
    applets = [oci.symlink(f"bin/{name}", "busybox") for name in ("sh", "echo", "cat", "ls", "true", "id", "sleep")]
    root = [oci.directory("bin"), Entry("bin/busybox", data=busybox, mode=0o755), *applets]
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]}}
    with tempfile.TemporaryDirectory() as folder:
        layout = Path(folder) / "layout"
        writer = oci.LayoutWriter(layout)
        writer.add_layer(oci.Layer(_complete(root), Compression.GZIP, "busybox"))
        writer.finish(config, "localhost/busybox:latest")
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for path in sorted(path for path in layout.rglob("*") if path.is_file()):
                info = tarfile.TarInfo(str(path.relative_to(layout)))
                info.size, info.mtime = path.stat().st_size, MTIME
                with path.open("rb") as file:
                    tar.addfile(info, file)
        return archive.getvalue()
