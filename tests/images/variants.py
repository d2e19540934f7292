"""Images made from the server image without installing packages: a layer on top, another config, other layers."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import oci
from oci import WHITEOUT, Compression, Entry, Kind, Layer, Layout
from oddities import SOURCE_DATE_EPOCH

LAYERS = 128  # what container engines and overlayfs take at most
SSHD = (
    "usr/sbin/sshd",
    "usr/lib/openssh/sshd-auth",
    "usr/lib/openssh/sshd-session",
    "usr/lib/systemd/system/ssh.service",
    "usr/lib/systemd/system/ssh.socket",
    "usr/lib/systemd/system/sshd@.service",
    "usr/lib/systemd/system/sshd-keygen.service",
    "etc/systemd/system/sshd.service",
    "etc/systemd/system/multi-user.target.wants/ssh.service",
)


class VariantError(Exception):
    """The server image lacks what a variant changes."""


def failing_unit(server: Layout, target: Path, tag: str) -> None:
    """An enabled unit whose only command fails."""
    unit = "usr/lib/systemd/system/broken-on-purpose.service"
    text = "[Unit]\nDescription=Fails\n\n[Service]\nType=oneshot\nExecStart=/usr/bin/false\n"
    wanted = oci.symlink("etc/systemd/system/multi-user.target.wants/broken-on-purpose.service", "/" + unit)
    _on_top(server, target, tag, [Entry(unit, data=text.encode()), wanted])


def no_kernel(server: Layout, target: Path, tag: str) -> None:
    """The modules are there, the kernel is not."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        kernels = [path for path in oci.merge(server.entries(Path(scratch))) if path.endswith("/vmlinuz")]
    if len(kernels) != 1:
        raise VariantError(f"expected one kernel, found {kernels}")
    _on_top(server, target, tag, [_whiteout(path) for path in kernels])


def no_sshd(server: Layout, target: Path, tag: str) -> None:
    """No SSH server and none of its units."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        missing = set(SSHD) - set(oci.merge(server.entries(Path(scratch))))
    if missing:
        raise VariantError(f"nothing to hide at {sorted(missing)}")
    _on_top(server, target, tag, [_whiteout(path) for path in SSHD])


def arm64(server: Layout, target: Path, tag: str) -> None:
    """The same layers, said to be for arm64."""
    writer = _copy(server, target)
    writer.finish({**_config(server), "architecture": "arm64"}, tag)


def flipped(server: Layout, target: Path, tag: str) -> None:
    """One byte of the last layer's blob differs from what the manifest promises."""
    writer = _copy(server, target)
    writer.finish(_config(server), tag)
    blob = oci.blob(target, server.manifest["layers"][-1]["digest"])
    body = bytearray(blob.read_bytes())
    body[len(body) // 2] ^= 0x01
    blob.unlink()  # it shares its inode with the server image
    blob.write_bytes(body)


def server_128(server: Layout, target: Path, tag: str) -> None:
    """The root of the server image in exactly 128 layers; the two odd layers stay as they are, on top."""
    writer = oci.LayoutWriter(target)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        *lower, _, _ = server.entries(Path(scratch))
        tree = oci.merge(lower)
        compressions = list(Compression)
        for number, part in enumerate(_parts(tree, LAYERS - 2)):
            compression = compressions[number % len(compressions)]
            writer.add_layer(Layer(part, compression, f"part {number + 1}"))
    _copy_layers(server, writer, first=len(lower))
    writer.finish(_config(server), tag)


MAKERS: Mapping[str, Callable[[Layout, Path, str], None]] = {
    "failing-unit": failing_unit,
    "no-kernel": no_kernel,
    "no-sshd": no_sshd,
    "arm64": arm64,
    "flipped": flipped,
    "server-128": server_128,
}


def _parts(tree: dict[str, Entry], count: int) -> Iterable[list[Entry]]:
    """Split `tree` into `count` layers; hard links stay together, each layer has the parents of its entries."""
    above = {folder for path in tree for folder in oci.parents(path)}
    groups: dict[str, list[Entry]] = {}
    for entry in oci.in_order(tree.values()):
        if entry.kind is not Kind.DIRECTORY or entry.path not in above:
            groups.setdefault(entry.inode or "path:" + entry.path, []).append(entry)
    units = list(groups.values())
    for number in range(count):
        chosen = units[len(units) * number // count : len(units) * (number + 1) // count]
        part = {entry.path: entry for unit in chosen for entry in unit}
        for path in list(part):
            part.update({folder: tree[folder] for folder in oci.parents(path)})
        yield list(part.values())


def _whiteout(path: str) -> Entry:
    folder, _, name = path.rpartition("/")
    return Entry(f"{folder}/{WHITEOUT}{name}")


def _config(server: Layout) -> dict[str, Any]:
    return {key: value for key, value in server.config.items() if key not in ("rootfs", "history")}


def _copy(server: Layout, target: Path) -> oci.LayoutWriter:
    writer = oci.LayoutWriter(target)
    _copy_layers(server, writer, first=0)
    return writer


def _copy_layers(server: Layout, writer: oci.LayoutWriter, first: int) -> None:
    layers = zip(server.manifest["layers"], server.config["rootfs"]["diff_ids"], server.config["history"], strict=True)
    for described, diff_id, history in list(layers)[first:]:
        blob = oci.blob(server.path, described["digest"])
        writer.add_blob_layer(blob, described["mediaType"], diff_id, history["created_by"])


def _on_top(server: Layout, target: Path, tag: str, entries: Iterable[Entry]) -> None:
    writer = _copy(server, target)
    tree = {entry.path: entry for entry in entries}
    for path in list(tree):
        tree.update({folder: oci.directory(folder) for folder in oci.parents(path)})
    dated = [dataclasses.replace(entry, mtime=SOURCE_DATE_EPOCH) for entry in tree.values()]
    writer.add_layer(Layer(dated, Compression.GZIP, target.name))
    writer.finish(_config(server), tag)
