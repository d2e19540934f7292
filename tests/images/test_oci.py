"""The layouts that the builder writes: read back, merged, and read by GNU tar."""

import hashlib
import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import oci
import oddities
import pytest
from oci import Compression, Entry, Layer, Layout

CONFIG = {"architecture": "amd64", "os": "linux", "config": {"Labels": {"containers.bootc": "1"}}}
BUSYBOX = Entry("usr/bin/busybox", data=b"\x7fELF" + bytes(2000), mode=0o755)


def below() -> list[Entry]:
    return oddities.below(BUSYBOX)


def write(path: Path, *layers: Layer) -> Layout:
    writer = oci.LayoutWriter(path)
    for layer in layers:
        writer.add_layer(layer)
    writer.finish(CONFIG, "v1")
    return Layout.read(path)


def facts(entries: list[Entry]) -> dict[str, Any]:
    """What of the entries must survive a round trip; hard links as the set of their names."""
    names: dict[str, set[str]] = {}
    for entry in entries:
        names.setdefault(entry.inode or entry.path, set()).add(entry.path)
    return {
        entry.path: (
            entry.kind,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.mtime,
            oci.content(entry),
            entry.target,
            dict(entry.xattrs),
            names[entry.inode or entry.path],
        )
        for entry in entries
    }


def own(path: str) -> str:
    return f"{oddities.OWN}/{path}"


@pytest.mark.parametrize("compression", Compression)
def test_a_layer_reads_back_as_written(tmp_path: Path, compression: Compression) -> None:
    layout = write(tmp_path / "layout", Layer(below(), compression, "odd"))
    (read,) = layout.entries(tmp_path)
    assert facts(read) == facts(below())


def test_descriptors_are_true_of_their_blobs(tmp_path: Path) -> None:
    layers = [Layer(below(), compression, str(compression)) for compression in Compression]
    layout = write(tmp_path / "layout", *layers)
    index = json.loads((layout.path / "index.json").read_bytes())
    described = [*index["manifests"], layout.manifest["config"], *layout.manifest["layers"]]
    for descriptor in described:
        body = oci.blob(layout.path, descriptor["digest"]).read_bytes()
        assert descriptor["digest"] == "sha256:" + hashlib.sha256(body).hexdigest()
        assert descriptor["size"] == len(body)
    layout.entries(tmp_path)
    raw = [(tmp_path / f"layer-{number}.tar").read_bytes() for number in range(len(layers))]
    assert layout.config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(tar).hexdigest() for tar in raw]
    assert index["manifests"][0]["annotations"] == {oci.REF_NAME: "v1"}
    assert [layer["mediaType"].rpartition(".")[2] for layer in layout.manifest["layers"]] == [
        "tar",
        "tar+gzip",
        "tar+zstd",
    ]


def test_equal_entries_make_equal_digests(tmp_path: Path) -> None:
    shuffled = below()
    random.Random(1).shuffle(shuffled)
    layouts = [
        write(tmp_path / name, Layer(entries, Compression.GZIP, "odd"))
        for name, entries in (("one", below()), ("two", shuffled))
    ]
    assert layouts[0].manifest == layouts[1].manifest
    stamp = oci.blob(layouts[0].path, layouts[0].manifest["layers"][0]["digest"]).read_bytes()[4:8]
    assert stamp == bytes(4)  # a gzip header may carry the time of the compression


def test_upper_layers_hide_and_replace(tmp_path: Path) -> None:
    layers = [Layer(below(), Compression.NONE, "below"), Layer(oddities.above(), Compression.GZIP, "above")]
    merged = oci.merge(write(tmp_path / "layout", *layers).entries(tmp_path))
    changed = ("whiteout", "opaque", "links", "replaced")
    files = {
        path.removeprefix(own("")): oci.content(entry)
        for path, entry in merged.items()
        if path.startswith(tuple(own(name) for name in changed)) and entry.kind is not oci.Kind.DIRECTORY
    }
    assert files == {
        "whiteout/kept": b"kept\n",
        "opaque/new": b"new\n",
        "links/a/first": b"linked\n",
        "links/b/second": b"linked\n",
        "links/d/stays": b"halved\n",
        "links/e/stays": b"other half\n",
        "replaced/file-by-folder/file": b"in a folder\n",
        "replaced/folder-by-file": b"a file\n",
        "replaced/link-by-file": b"no longer a link\n",
        "replaced/mode": b"mode\n",
    }
    assert merged[own("replaced/link-by-file")].kind is oci.Kind.FILE
    assert merged[own("replaced/mode")].mode == 0o644
    assert own("whiteout/folder") not in merged
    assert own("opaque/sub") not in merged


def test_gnu_tar_reads_the_layer(tmp_path: Path) -> None:
    tar = tmp_path / "layer.tar"
    with tar.open("wb") as file:
        oci.write_tar(below(), file)
    root = tmp_path / "root"
    root.mkdir()
    options = ["--xattrs", "--xattrs-include=user.*", "--no-same-owner", "--preserve-permissions"]
    subprocess.run(["tar", "-x", "-f", tar, "-C", root, *options], check=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    for entry in below():
        path = root / entry.path
        assert path.is_symlink() == (entry.kind is oci.Kind.SYMLINK)
        if path.is_symlink():
            assert str(path.readlink()) == entry.target
            continue
        assert path.stat().st_mode & 0o7777 == entry.mode
        if entry.kind is oci.Kind.FILE and entry.mode:
            assert path.read_bytes() == oci.content(entry)
            assert path.stat().st_mtime == entry.mtime
        if entry.mode:
            user = {name: value for name, value in entry.xattrs.items() if name.startswith("user.")}
            assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == user
    linked = [(root / own(f"links/{name}")).stat().st_ino for name in ("a/first", "b/second")]
    assert linked[0] == linked[1]


def test_container_archive_is_a_whole_image(tmp_path: Path) -> None:
    archive = tmp_path / "busybox.tar"
    archive.write_bytes(oddities.container_archive(oci.content(BUSYBOX)))
    (tmp_path / "layout").mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", tmp_path / "layout"], check=True)  # tarfile's filters are of 3.11.4
    (entries,) = Layout.read(tmp_path / "layout").entries(tmp_path)
    tree = {entry.path: entry for entry in entries}
    assert oci.content(tree["bin/busybox"]) == oci.content(BUSYBOX)
    assert tree["bin/sh"].target == "busybox"
