"""Images made from the server image without installing packages: a layer on top, another config, other layers."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import debian
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
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
# Of the packages systemd-coredump and apparmor: no manual pages, no profiles that would be loaded.
_CAUGHT = re.compile(
    r"usr/s?bin/(coredumpctl|aa-exec|apparmor_parser)|etc/apparmor/parser\.conf|usr/share/apparmor-features/.*"
    r"|usr/lib/(systemd|sysctl\.d|sysusers\.d)/.*coredump.*|etc/(systemd|security/limits\.d)/.*coredump\S*\.conf"
)


class VariantError(Exception):
    """The server image lacks what a variant changes."""


def failing_unit(server: Layout, target: Path, tag: str) -> None:
    """An enabled unit whose only command fails."""
    _on_top(server, target, tag, _enabled("broken-on-purpose", run="/usr/bin/false"))


def stuck_unit(server: Layout, target: Path, tag: str) -> None:
    """An enabled unit that is being started for ever."""
    _on_top(
        server, target, tag, _enabled("stuck-on-purpose", "TimeoutStartSec=infinity", run="/usr/bin/sleep infinity")
    )


def ordering_cycle(server: Layout, target: Path, tag: str) -> None:
    """Two enabled units, each of which is to be started before the other."""
    cycle = [("hen-on-purpose", "egg-on-purpose"), ("egg-on-purpose", "hen-on-purpose")]
    units = [_enabled(name, run="/usr/bin/true", unit=f"Before={other}.service") for name, other in cycle]
    _on_top(server, target, tag, [entry for unit in units for entry in unit])


def skipped_unit(server: Layout, target: Path, tag: str) -> None:
    """An enabled unit whose condition never holds: it would fail, if it were started."""
    entries = _enabled("skipped-on-purpose", run="/usr/bin/false", unit="ConditionPathExists=/nowhere")
    _on_top(server, target, tag, entries)


def boot_panic(server: Layout, target: Path, tag: str) -> None:
    """A unit that makes the kernel panic, long before sshd is started."""
    unit = "DefaultDependencies=no\nBefore=sysinit.target"
    run = "/bin/sh -c 'echo c >/proc/sysrq-trigger'"
    _on_top(server, target, tag, _enabled("panic-on-purpose", run=run, unit=unit, target="sysinit.target"))


def hang_before_sshd(server: Layout, target: Path, tag: str) -> None:
    """A unit that never ends, and that sshd waits for."""
    unit = "Before=ssh.service sshd.service"
    entries = _enabled("hang-on-purpose", "TimeoutStartSec=infinity", run="/usr/bin/sleep infinity", unit=unit)
    _on_top(server, target, tag, entries)


def emergency_shell(server: Layout, target: Path, tag: str) -> None:
    """A file system that the boot needs and that nobody has."""
    line = "/dev/disk/by-label/nowhere /var/nowhere ext4 x-systemd.device-timeout=2s 0 0\n"
    _on_top(server, target, tag, [Entry("etc/fstab", data=line.encode())])


def wrong_target(server: Layout, target: Path, tag: str) -> None:
    """The boot ends in a shell for repairs by default."""
    link = oci.symlink("etc/systemd/system/default.target", "/usr/lib/systemd/system/rescue.target")
    _on_top(server, target, tag, [link])


def no_virtio_blk(server: Layout, target: Path, tag: str) -> None:
    """The kernel's list of modules names one for the machine's disk, and the file is gone."""
    with _merged(server, target) as tree:
        module = _only(tree, "/virtio_blk.ko.xz")
    _on_top(server, target, tag, [_whiteout(module)])


def unknown_root(server: Layout, target: Path, tag: str) -> None:
    """What is called erofs is another module, so that the kernel does not know the root's file system."""
    with _merged(server, target) as tree:
        module, another = _only(tree, "/erofs.ko.xz"), _only(tree, "/nls_utf8.ko.xz")
        _on_top(server, target, tag, [Entry(module, data=oci.content(tree[another]))])


def neglected(server: Layout, target: Path, tag: str) -> None:
    """It boots well, and is not: /var full, the clock far off, newuidmap without rights, the linker's cache stale."""
    script = (
        "#!/bin/sh\nset -e\n"
        "free=$(($(stat -f -c %a /var) * $(stat -f -c %S /var)))\nfallocate -l $((free / 100 * 95)) /var/filler\n"
        "date -s '+1 day'\n"
    )
    with _merged(server, target) as tree:
        library = oci.content(tree[f"{_LIBRARIES}/{tree[f'{_LIBRARIES}/libz.so.1'].target}"])
        helper = dataclasses.replace(tree["usr/bin/newuidmap"], mode=0o755, xattrs={}, inode="")
        # The same size: the name that the linker looks for is a string in the file.
        added = Entry(f"{_LIBRARIES}/libq.so.1", data=library.replace(b"libz.so.1\0", b"libq.so.1\0"))
        entries = [Entry("usr/libexec/neglect", data=script.encode(), mode=0o755), helper, added]
        # This unit would mend the cache at each boot, where nothing says that the boot is not the first.
        entries.append(_whiteout("usr/lib/systemd/system/sysinit.target.wants/ldconfig.service"))
        entries += _enabled("neglect", run="/usr/libexec/neglect", unit="Before=ssh.service sshd.service")
        _on_top(server, target, tag, entries)


def coredump_apparmor(server: Layout, target: Path, tag: str) -> None:
    """Crashes are caught by systemd-coredump, and there is a parser for AppArmor's profiles."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        tar = Path(scratch) / "packages.tar"
        _extract(tar, "systemd-coredump", "apparmor")
        entries = [entry for entry in oci.read_tar(tar) if _CAUGHT.fullmatch(entry.path)]
        _on_top(server, target, tag, entries)


def no_kernel(server: Layout, target: Path, tag: str) -> None:
    """The modules are there, the kernel is not."""
    with _merged(server, target) as tree:
        kernel = _only(tree, "/vmlinuz")
    _on_top(server, target, tag, [_whiteout(kernel)])


def no_sshd(server: Layout, target: Path, tag: str) -> None:
    """No SSH server and none of its units."""
    with _merged(server, target) as tree:
        missing = set(SSHD) - set(tree)
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
    "stuck-unit": stuck_unit,
    "ordering-cycle": ordering_cycle,
    "skipped-unit": skipped_unit,
    "boot-panic": boot_panic,
    "hang-before-sshd": hang_before_sshd,
    "emergency-shell": emergency_shell,
    "wrong-target": wrong_target,
    "no-virtio-blk": no_virtio_blk,
    "unknown-root": unknown_root,
    "neglected": neglected,
    "coredump-apparmor": coredump_apparmor,
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


def _extract(tar: Path, *packages: str) -> None:
    """Put the files of packages, and of those that they need, into a new tarball; nothing is configured."""
    command = ["mmdebstrap", "--quiet", "--variant=extract", "--format=tar", "--include=" + ",".join(packages)]
    command += ["--mode=root" if os.geteuid() == 0 else "--mode=unshare"]
    command += [f"--aptopt={option}" for option in debian.APT_OPTIONS]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH), "LC_ALL": "C.UTF-8"}
    command += [debian.SUITE, os.fspath(tar), *debian.mirror()]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, env=environment)


@contextmanager
def _merged(server: Layout, target: Path) -> Iterator[dict[str, Entry]]:
    """What the layers of the server image show together; contents can be read while the context lasts."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        yield oci.merge(server.entries(Path(scratch)))


def _only(tree: Iterable[str], end: str) -> str:
    found = [path for path in tree if path.endswith(end)]
    if len(found) != 1:
        raise VariantError(f"expected one file with a path that ends with {end}, found {found}")
    return found[0]


def _enabled(name: str, *service: str, run: str, unit: str = "", target: str = "multi-user.target") -> list[Entry]:
    """A unit that runs one command, and the link that has it started."""
    path = f"usr/lib/systemd/system/{name}.service"
    head = ["[Unit]", "Description=One of the faults of a test image", *([unit] if unit else [])]
    text = "\n".join([*head, "", "[Service]", "Type=oneshot", f"ExecStart={run}", *service, ""])
    wanted = oci.symlink(f"etc/systemd/system/{target}.wants/{name}.service", f"/{path}")
    return [Entry(path, data=text.encode()), wanted]


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
    writer.add_layer(Layer(debian.completed(entries, {}), Compression.GZIP, target.name))
    writer.finish(_config(server), tag)
