"""What the merged layers tell about an image before it boots: sshd, kernel arguments, layout, samples of its files."""

from __future__ import annotations

import hashlib
import random
import tomllib
from collections.abc import Iterable, Mapping

from pytest_bootc.disk.tar import EntryKind
from pytest_bootc.disk.tree import Node, Tree
from pytest_bootc.errors import ImageError

SAMPLES = 2000
"""How many files have their hashes recorded with the disk."""

_UNIT_FOLDERS = ("etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")
_SSH_UNITS = ("sshd.service", "ssh.service", "sshd.socket", "ssh.socket")
_SSH_PROGRAMS = ("usr/sbin/sshd", "usr/bin/sshd")
_PACKAGE_DATABASES = (
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "usr/share/rpm/rpmdb.sqlite",
    "usr/lib/sysimage/dpkg/status",
    "usr/lib/sysimage/lib/pacman/local/ALPM_DB_VERSION",
)
_MOUNT_POINTS = ("dev", "proc", "sys", "run", "etc", "var")
_LINKS = ("home", "root", "opt", "srv")
_OURS = ("root", "rootflags", "console", "init", "ro", "rw")
_CHUNK = 1 << 20


def ssh_units(tree: Tree) -> tuple[str, ...]:
    """The units that may start the image's sshd; none where it has no sshd at all."""
    if not any(tree.is_file(path) for path in _SSH_PROGRAMS):
        return ()
    return tuple(unit for unit in _SSH_UNITS if any(tree.is_file(f"{folder}/{unit}") for folder in _UNIT_FOLDERS))


def missing_mount_points(tree: Tree) -> tuple[str, ...]:
    """The folders of ``/`` that a read-only root must bring and this one does not."""
    nodes = {name: tree.nodes.get(name) for name in _MOUNT_POINTS}
    return tuple(name for name, node in nodes.items() if node is None or node.entry.kind is not EntryKind.FOLDER)


def has_deployment_layout(tree: Tree) -> bool:
    """Whether the root is laid out as bootc wants it: what people write to leads into /var."""
    links = [tree.nodes.get(name) for name in _LINKS]
    return any(node is not None and node.entry.kind is EntryKind.SYMLINK for node in links)


def kernel_arguments(tree: Tree, architecture: str) -> tuple[str, ...]:
    """The image's own kernel arguments, from /usr/lib/bootc/kargs.d (bootc, "Kernel arguments").

    Arguments that choose the root or the console are left out: the machine sets those.

    :raises ImageError: one of the files is malformed.
    """
    own = {"amd64": "x86_64", "arm64": "aarch64"}.get(architecture, architecture)
    arguments: list[str] = []
    folder = "usr/lib/bootc/kargs.d"
    for name in tree.names(folder):
        if name.endswith(".toml"):
            arguments += _arguments_in(tree, f"{folder}/{name}", own)
    return tuple(a for a in arguments if a.partition("=")[0] not in _OURS)


def _arguments_in(tree: Tree, path: str, architecture: str) -> list[str]:
    """What one file adds on this architecture."""
    problem = "kargs and match-architectures are lists of texts"
    try:
        document = tomllib.loads(tree.read(path).decode())
        arguments, architectures = document.get("kargs", []), document.get("match-architectures", [architecture])
        if all(
            isinstance(words, list) and all(isinstance(w, str) for w in words) for words in (arguments, architectures)
        ):
            return arguments if architecture in architectures else []
    except ValueError as error:  # no UTF-8, or no TOML
        problem = str(error)
    raise ImageError(
        f"the kernel arguments in /{path} cannot be read: {problem}",
        resolution="correct the file; bootc refuses it too, when it installs or upgrades",
    )


def etc_folders(tree: Tree) -> Mapping[str, int]:
    """The permission bits of every folder below /etc, by its absolute path."""
    return {f"/{path}": node.entry.mode for path, node in tree.below("etc") if node.entry.kind is EntryKind.FOLDER}


def samples(tree: Tree, rng: random.Random) -> Mapping[str, str]:
    """The sha256 of files that a running system leaves alone, by absolute path: some at random, and package databases.

    They are read from the layers, whose digests have just been verified.
    """
    file = EntryKind.FILE
    files = [(path, node) for path, node in tree.nodes.items() if node.entry.kind is file and path.startswith("usr/")]
    chosen = rng.sample(files, min(SAMPLES, len(files)))
    chosen += [(path, node) for path in _PACKAGE_DATABASES if tree.is_file(path) and (node := tree.lookup(path))]
    return {f"/{path}": _sha256(tree, node) for path, node in sorted(dict(chosen).items())}


def package_databases(paths: Iterable[str]) -> tuple[str, ...]:
    """Those of the absolute paths that are package databases."""
    return tuple(path for path in paths if path.lstrip("/") in _PACKAGE_DATABASES)


def _sha256(tree: Tree, node: Node) -> str:
    digest = hashlib.sha256()
    with tree.layers[node.layer].open("rb") as tar:
        tar.seek(node.entry.offset)
        left = node.entry.size
        while left:
            chunk = tar.read(min(left, _CHUNK))
            if not chunk:
                break
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()
