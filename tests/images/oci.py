"""Write, read and merge OCI image layouts with the standard library (and the `zstd` program).

The pieces follow the OCI image specification (`image-layout.md`, `layer.md`): a layout directory holds `oci-layout`,
`index.json` and content-addressed blobs; a layer is a tar of changes, `.wh.NAME` hides a lower NAME and `.wh..wh..opq`
hides everything that lower layers have in its directory. Tar members are written as registries' tools write them:
names relative to the root without a leading `./`, parents first, ustar headers, and PAX records only where ustar has
no room (long or non-ASCII names, extended attributes as `SCHILY.xattr.NAME`).
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
XATTR_RECORD = "SCHILY.xattr."
CHUNK = 1 << 20

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"


class Kind(StrEnum):
    """What a member of a layer is; a hard link is a FILE that shares its `inode` with others."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"


class Compression(StrEnum):
    """How a layer blob is stored; the value is the suffix of its media type."""

    NONE = ""
    GZIP = "+gzip"
    ZSTD = "+zstd"


@dataclasses.dataclass(frozen=True)
class Span:
    """`size` bytes at `offset` of the file `path`: content that stays where it is until a layer is written."""

    path: Path
    offset: int
    size: int


@dataclasses.dataclass(frozen=True)
class Entry:
    """One member of a layer. `path` is relative to the root; FILEs with one non-empty `inode` are hard links."""

    path: str
    kind: Kind = Kind.FILE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    data: bytes | Span = b""
    target: str = ""
    xattrs: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    inode: str = ""

    @property
    def size(self) -> int:
        """Length of the content in bytes."""
        return self.data.size if isinstance(self.data, Span) else len(self.data)


@dataclasses.dataclass(frozen=True)
class Layer:
    """The entries of one layer and how to store them."""

    entries: Sequence[Entry]
    compression: Compression
    comment: str


def directory(path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Entry:
    """A directory entry."""
    return Entry(path, Kind.DIRECTORY, mode, uid, gid)


def symlink(path: str, target: str) -> Entry:
    """A symbolic link entry."""
    return Entry(path, Kind.SYMLINK, 0o777, target=target)


def parents(path: str) -> Iterator[str]:
    """The directories above `path`, outermost first, without the root."""
    parts = path.split("/")
    return ("/".join(parts[:n]) for n in range(1, len(parts)))


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """`entries` sorted so that a parent precedes its children, whiteouts their siblings."""
    return sorted(entries, key=lambda entry: entry.path.split("/"))


def content(entry: Entry) -> bytes:
    """The whole content of a FILE."""
    return b"".join(_chunks(entry.data))


def _chunks(data: bytes | Span) -> Iterator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    with data.path.open("rb") as file:
        file.seek(data.offset)
        left = data.size
        while left:
            piece = file.read(min(CHUNK, left))
            if not piece:
                raise EOFError(f"{data.path} ends {left} bytes before the end of a member")
            left -= len(piece)
            yield piece


def _pax_record(key: str, value: bytes) -> bytes:
    body = b" " + key.encode() + b"=" + value + b"\n"
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def _header(entry: Entry, link: str | None) -> bytes:
    info = tarfile.TarInfo(entry.path)
    info.mode, info.uid, info.gid, info.mtime = entry.mode, entry.uid, entry.gid, entry.mtime
    if link is not None:
        info.type, info.linkname = tarfile.LNKTYPE, link
    elif entry.kind is Kind.DIRECTORY:
        info.type, info.name = tarfile.DIRTYPE, entry.path + "/"
    elif entry.kind is Kind.SYMLINK:
        info.type, info.linkname = tarfile.SYMTYPE, entry.target
    else:
        info.size = entry.size
    records = b"".join(_pax_record(XATTR_RECORD + key, value) for key, value in sorted(entry.xattrs.items()))
    try:
        block = info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
    except ValueError:  # the names do not fit ustar: too long, or not ASCII
        for key, name in (("path", info.name), ("linkpath", info.linkname)):
            if len(name) > 100 or not name.isascii():
                records += _pax_record(key, name.encode())
        info.name, info.linkname = _ascii(info.name), _ascii(info.linkname)
        block = info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
    if not records:
        return block
    extended = tarfile.TarInfo("PaxHeaders.0/" + _ascii(entry.path)[:80])
    extended.type, extended.size = tarfile.XHDTYPE, len(records)
    return extended.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512) + block


def _ascii(name: str) -> str:
    return name.encode("ascii", "replace").decode()[:99]


def write_tar(entries: Iterable[Entry], file: IO[bytes]) -> None:
    """Write `entries`, sorted, as a tar; the first of the files with one inode holds the content."""
    first: dict[str, str] = {}
    for entry in in_order(entries):
        link = first.get(entry.inode) if entry.inode else None
        file.write(_header(entry, link))
        if entry.kind is not Kind.FILE or link is not None:
            continue
        if entry.inode:
            first[entry.inode] = entry.path
        for piece in _chunks(entry.data):
            file.write(piece)
        file.write(bytes(-entry.size % 512))
    file.write(bytes(1024))


def read_tar(path: Path) -> list[Entry]:
    """The entries of an uncompressed tar file, device nodes left out; contents are Spans of that file."""
    entries: dict[str, Entry] = {}
    with tarfile.open(path, "r:") as tar:
        for info in tar:
            name = info.name.removeprefix("./").rstrip("/")
            if name in ("", ".") or info.isdev():
                continue
            if info.islnk():
                source = info.linkname.removeprefix("./")
                linked = dataclasses.replace(entries[source], inode=entries[source].inode or f"{path.name}:{source}")
                entries[source] = linked
                entries[name] = dataclasses.replace(linked, path=name)
            else:
                entries[name] = _entry(info, name, path)
    return list(entries.values())


def _entry(info: tarfile.TarInfo, name: str, path: Path) -> Entry:
    kind = Kind.DIRECTORY if info.isdir() else Kind.SYMLINK if info.issym() else Kind.FILE
    xattrs = {
        key.removeprefix(XATTR_RECORD): value.encode("utf-8", "surrogateescape")
        for key, value in info.pax_headers.items()
        if key.startswith(XATTR_RECORD)
    }
    data = Span(path, info.offset_data, info.size) if kind is Kind.FILE else b""
    return Entry(name, kind, info.mode, info.uid, info.gid, int(info.mtime), data, info.linkname, xattrs)


def merge(layers: Iterable[Iterable[Entry]]) -> dict[str, Entry]:
    """What the layers, lowest first, show together: path to entry, without whiteouts."""
    tree: dict[str, Entry] = {}
    for layer in layers:
        shown = [entry for entry in layer if not Path(entry.path).name.startswith(WHITEOUT)]
        for entry in layer:
            folder, _, name = entry.path.rpartition("/")
            if name == OPAQUE:
                _remove_below(tree, folder)
            elif name.startswith(WHITEOUT):
                hidden = f"{folder}/{name.removeprefix(WHITEOUT)}".lstrip("/")
                tree.pop(hidden, None)
                _remove_below(tree, hidden)
        for entry in in_order(shown):
            if entry.kind is not Kind.DIRECTORY:
                _remove_below(tree, entry.path)
            tree[entry.path] = entry
    return tree


def _remove_below(tree: dict[str, Entry], folder: str) -> None:
    for path in [path for path in tree if path.startswith(folder + "/")]:
        del tree[path]


class LayoutWriter:
    """Builds one image in an OCI layout directory: `add_layer` bottom-up, then `finish`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blobs = path / "blobs" / "sha256"
        self.blobs.mkdir(parents=True)
        self.layers: list[dict[str, Any]] = []
        self.diff_ids: list[str] = []
        self.history: list[dict[str, Any]] = []

    def add_layer(self, layer: Layer) -> None:
        """Write `layer` as a blob and put it on top."""
        with tempfile.NamedTemporaryFile(dir=self.path, prefix="layer-") as raw:
            write_tar(layer.entries, raw)
            raw.flush()
            packed = self._compress(Path(raw.name), layer.compression)
            diff_id = _file_digest(Path(raw.name))
        self.add_blob_layer(packed, LAYER_TYPE + layer.compression, diff_id, layer.comment)
        packed.unlink()

    def add_blob_layer(self, blob: Path, media_type: str, diff_id: str, comment: str) -> None:
        """Put an existing layer blob on top (hard-linked where the file system allows it)."""
        digest = _file_digest(blob)
        stored = self.blobs / digest.partition(":")[2]
        if not stored.exists():
            try:
                os.link(blob, stored)
            except OSError:  # another file system
                shutil.copyfile(blob, stored)
        self.layers.append({"mediaType": media_type, "digest": digest, "size": blob.stat().st_size})
        self.diff_ids.append(diff_id)
        self.history.append({"created_by": comment})

    def finish(self, config: Mapping[str, Any], tag: str) -> str:
        """Write config, manifest and index (`tag` as its ref name); return the manifest digest."""
        rootfs = {"type": "layers", "diff_ids": self.diff_ids}
        body = {**config, "rootfs": rootfs, "history": self.history}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": self._json_blob(body, CONFIG_TYPE),
            "layers": self.layers,
        }
        described = self._json_blob(manifest, MANIFEST_TYPE)
        platform = {"architecture": config["architecture"], "os": config["os"]}
        index = {
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": [{**described, "platform": platform, "annotations": {REF_NAME: tag}}],
        }
        (self.path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        (self.path / "index.json").write_bytes(_json(index))
        return str(described["digest"])

    def _json_blob(self, value: Mapping[str, Any], media_type: str) -> dict[str, Any]:
        body = _json(value)
        name = hashlib.sha256(body).hexdigest()
        (self.blobs / name).write_bytes(body)
        return {"mediaType": media_type, "digest": "sha256:" + name, "size": len(body)}

    def _compress(self, raw: Path, compression: Compression) -> Path:
        packed = raw.with_name(raw.name + ".packed")
        if compression is Compression.ZSTD:
            subprocess.run(["zstd", "-q", "-3", "-T0", "-f", os.fspath(raw), "-o", os.fspath(packed)], check=True)
        elif compression is Compression.GZIP:
            with packed.open("wb") as out, gzip.GzipFile("", "wb", 1, out, mtime=0) as gz, raw.open("rb") as source:
                shutil.copyfileobj(source, gz, CHUNK)
        else:
            shutil.copyfile(raw, packed)
        return packed


@dataclasses.dataclass(frozen=True)
class Layout:
    """An image read from a layout directory: its manifest and config as JSON values."""

    path: Path
    manifest: Mapping[str, Any]
    config: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Layout:
        """Read the one image of the layout at `path`."""
        index = json.loads((path / "index.json").read_bytes())
        (described,) = index["manifests"]
        manifest = json.loads(blob(path, described["digest"]).read_bytes())
        config = json.loads(blob(path, manifest["config"]["digest"]).read_bytes())
        return cls(path, manifest, config)

    def entries(self, scratch: Path) -> list[list[Entry]]:
        """The entries of each layer, lowest first; uncompressed tars are put into `scratch` and must stay there."""
        layers = []
        for number, described in enumerate(self.manifest["layers"]):
            raw = scratch / f"layer-{number}.tar"
            _uncompress(blob(self.path, described["digest"]), described["mediaType"], raw)
            layers.append(read_tar(raw))
        return layers


def blob(layout: Path, digest: str) -> Path:
    """Where a layout keeps the blob `digest` ("sha256:HEX")."""
    return layout / "blobs" / digest.replace(":", "/")


def _uncompress(packed: Path, media_type: str, raw: Path) -> None:
    if media_type.endswith(Compression.ZSTD):
        subprocess.run(["zstd", "-q", "-d", "-f", os.fspath(packed), "-o", os.fspath(raw)], check=True)
    elif media_type.endswith(Compression.GZIP):
        with gzip.open(packed) as source, raw.open("wb") as out:
            shutil.copyfileobj(source, out, CHUNK)
    else:
        shutil.copyfile(packed, raw)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
