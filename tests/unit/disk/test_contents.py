from __future__ import annotations

import hashlib
import random
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pytest_bootc.disk import contents
from pytest_bootc.disk.contents import (
    etc_folders,
    has_deployment_layout,
    kernel_arguments,
    missing_mount_points,
    package_databases,
    samples,
    ssh_units,
)
from pytest_bootc.disk.tar import scan
from pytest_bootc.disk.tree import Tree
from pytest_bootc.errors import Blame, ImageError

Member = tuple[tarfile.TarInfo, bytes]
TreeOf = Callable[..., Tree]
SSHD = {"usr/sbin/sshd": b""}
UNITS = "usr/lib/systemd/system"
KARGS = "usr/lib/bootc/kargs.d"


@pytest.mark.parametrize(
    ("files", "units"),
    [
        ({}, ()),
        ({f"{UNITS}/sshd.service": b""}, ()),
        (SSHD, ()),
        ({**SSHD, f"{UNITS}/sshd.service": b""}, ("sshd.service",)),
        ({"usr/bin/sshd": b"", f"{UNITS}/sshd.socket": b""}, ("sshd.socket",)),
        ({**SSHD, f"{UNITS}/ssh.service": b"", f"{UNITS}/ssh.socket": b""}, ("ssh.service", "ssh.socket")),
        (
            {**SSHD, f"{UNITS}/ssh.service": b"", "etc/systemd/system/sshd.service": f"/{UNITS}/ssh.service"},
            ("sshd.service", "ssh.service"),
        ),
        ({**SSHD, "etc/systemd/system/sshd.service": "/dev/null"}, ()),
        ({**SSHD, "lib": "usr/lib", f"{UNITS}/sshd.service": b""}, ("sshd.service",)),
        ({"usr/sbin": "bin", "usr/bin/sshd": b"", f"{UNITS}/sshd.service": b""}, ("sshd.service",)),
    ],
)
def test_the_units_that_start_sshd(tree_of: TreeOf, files: dict[str, bytes | str], units: tuple[str, ...]) -> None:
    assert ssh_units(tree_of(files)) == units


def test_mount_points_are_folders_of_the_root(tree_of: TreeOf) -> None:
    tree = tree_of({"dev/x": b"", "proc": b"", "sys": "run", "run/x": b"", "etc/hosts": b""})
    assert missing_mount_points(tree) == ("proc", "sys", "var")
    assert (
        missing_mount_points(tree_of({f"{name}/x": b"" for name in ("dev", "proc", "sys", "run", "etc", "var")})) == ()
    )


@pytest.mark.parametrize(
    ("files", "has"),
    [
        ({"home": "var/home"}, True),
        ({"root": "var/roothome", "home/x": b""}, True),
        ({"home/x": b"", "opt/x": b""}, False),
        ({"bin": "usr/bin"}, False),
    ],
)
def test_the_layout_is_told_by_links(tree_of: TreeOf, files: dict[str, bytes | str], has: bool) -> None:  # noqa: FBT001
    assert has_deployment_layout(tree_of(files)) is has


def test_kernel_arguments_of_all_files_in_order(tree_of: TreeOf) -> None:
    tree = tree_of(
        {
            f"{KARGS}/20-more.toml": b'kargs = ["late=1"]\nmatch-architectures = ["aarch64", "x86_64"]',
            f"{KARGS}/10-first.toml": b'kargs = ["quiet", "early=1", "root=UUID=x", "console=ttyS1", "rw", "ro"]',
            f"{KARGS}/15-arm.toml": b'kargs = ["arm"]\nmatch-architectures = ["aarch64"]',
            f"{KARGS}/30-none.toml": b'kargs = ["none"]\nmatch-architectures = []',
            f"{KARGS}/40-empty.toml": b"# nothing\n",
            f"{KARGS}/50-odd.toml": 'kargs = ["rootdelay=1", "a=ü b", "init=/x", "rootflags=y"]'.encode(),
            f"{KARGS}/readme.txt": b"no TOML",
        }
    )
    assert kernel_arguments(tree, "amd64") == ("quiet", "early=1", "late=1", "rootdelay=1", "a=ü b")
    assert kernel_arguments(tree, "arm64") == ("quiet", "early=1", "arm", "late=1", "rootdelay=1", "a=ü b")
    assert kernel_arguments(tree_of({"etc/x": b""}), "amd64") == ()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"kargs = [", "cannot be read: Invalid"),
        (b"kargs = ['\xff']", "codec can't decode"),
        (b"kargs = 'quiet'", "are lists of texts"),
        (b"kargs = [1]", "are lists of texts"),
        (b"kargs = []\nmatch-architectures = 'x86_64'", "are lists of texts"),
    ],
)
def test_kernel_arguments_that_cannot_be_read(tree_of: TreeOf, content: bytes, why: str) -> None:
    with pytest.raises(ImageError) as caught:
        kernel_arguments(tree_of({f"{KARGS}/10-x.toml": content}), "amd64")
    assert caught.value.brief.startswith(f"the kernel arguments in /{KARGS}/10-x.toml cannot be read: ")
    assert why in caught.value.brief
    assert caught.value.blame is Blame.IMAGE
    assert caught.value.resolution


def test_a_folder_of_kernel_arguments_is_refused_by_name(tree_of: TreeOf) -> None:
    with pytest.raises(ImageError, match=f"the image has no file /{KARGS}/10-x.toml"):
        kernel_arguments(tree_of({f"{KARGS}/10-x.toml/file": b""}), "amd64")


def test_folders_below_etc_and_their_modes(
    tmp_path: Path, member: Callable[..., Member], tar_of: Callable[..., bytes]
) -> None:
    def folder(name: str, mode: int) -> Member:
        return member(name, type=tarfile.DIRTYPE, mode=mode)

    layer = tmp_path / "layer.tar"
    layer.write_bytes(
        tar_of(folder("etc", 0o755), folder("etc/ssh", 0o700), member("etc/ssh/x"), folder("etcetera", 0o711))
    )
    tree = Tree([layer])
    tree.apply(scan(layer))
    assert etc_folders(tree) == {"/etc": 0o755, "/etc/ssh": 0o700}


class Choice(random.Random):
    """Chooses the last ones."""

    def sample(self, population: Sequence[object], k: int, *, counts: object = None) -> list[object]:  # type: ignore[override]
        return list(population)[-k:] if k else []


def test_samples_are_hashes_of_files_and_package_databases(tree_of: TreeOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "SAMPLES", 2)
    files = {f"usr/share/{n}": f"{n}".encode() for n in range(9)}
    database = b"packages" * 300_000
    tree = tree_of(
        {
            "usr/share/rpm": "../lib/sysimage/rpm",
            "usr/lib/sysimage/rpm/rpmdb.sqlite": database,
            "usr/lib/sysimage/dpkg/status/folder": b"",
            **files,
            "etc/x": b"",
        }
    )
    seen = samples(tree, Choice())
    wanted = {f"/usr/share/{n}": hashlib.sha256(f"{n}".encode()).hexdigest() for n in (7, 8)}
    for path in ("/usr/lib/sysimage/rpm/rpmdb.sqlite", "/usr/share/rpm/rpmdb.sqlite"):
        wanted[path] = hashlib.sha256(database).hexdigest()
    assert seen == wanted
    assert package_databases(seen) == ("/usr/lib/sysimage/rpm/rpmdb.sqlite", "/usr/share/rpm/rpmdb.sqlite")


def test_a_small_image_is_sampled_whole(tree_of: TreeOf) -> None:
    tree = tree_of({"usr/a": b"a", "usr/b": b"b", "usr/link": "a", "etc/c": b"c"})
    assert sorted(samples(tree, random.Random(1))) == ["/usr/a", "/usr/b"]
