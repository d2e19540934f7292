"""The server image keeps what a bootc image promises."""

import re
import subprocess
import sys
from pathlib import Path

import debian
import oci
import oddities
import pytest
from oci import Compression, Entry, Kind, Layout

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server() -> Layout:
    builder = Path(__file__).with_name("build.py")
    printed = subprocess.run([sys.executable, builder, "server"], check=True, stdout=subprocess.PIPE, text=True).stdout
    return Layout.read(Path(printed.strip()))


@pytest.fixture(scope="module")
def root(server: Layout, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Entry]:
    return oci.merge(server.entries(tmp_path_factory.mktemp("layers")))


def below(root: dict[str, Entry], folder: str) -> set[str]:
    return {path for path in root if path.startswith(folder + "/")}


def test_the_image_says_that_it_is_bootable(server: Layout) -> None:
    assert server.config["config"]["Labels"]["containers.bootc"] == "1"
    assert server.config["config"]["Cmd"] == ["/sbin/init"]
    compressions = {layer["mediaType"].removeprefix(oci.LAYER_TYPE) for layer in server.manifest["layers"]}
    assert compressions == {str(compression) for compression in Compression}
    assert len(server.manifest["layers"]) >= 5


def test_only_usr_and_etc_have_content(root: dict[str, Entry]) -> None:
    top = {path for path in root if "/" not in path and root[path].kind is Kind.DIRECTORY}
    assert {folder for folder in top if below(root, folder)} == {"usr", "etc", "var"}
    seed = "var/lib/pytest-bootc-image/seed"
    assert below(root, "var") == {*oci.parents(seed), seed} - {"var"}
    links = {path: root[path].target for path in debian.LINKS}
    assert links == debian.LINKS
    assert all(root[path].target == f"usr/{path}" for path in ("bin", "lib", "lib64", "sbin"))


def test_one_kernel_and_no_initramfs(root: dict[str, Entry]) -> None:
    (kernel,) = [path for path in root if path.endswith("/vmlinuz")]
    assert re.fullmatch(r"usr/lib/modules/[^/]+/vmlinuz", kernel)
    assert not [path for path in root if "initramfs.img" in path or "initrd.img" in path]


def test_nothing_of_one_machine_is_in_it(root: dict[str, Entry]) -> None:
    assert oci.content(root["etc/machine-id"]) == b""
    assert not [path for path in root if path.startswith("etc/ssh/ssh_host_")]
    assert "etc/fstab" not in root
    shadow = oci.content(root["etc/shadow"]).decode().splitlines()
    assert [line for line in shadow if not line.split(":")[1].startswith(("*", "!"))] == []


def test_directories_of_var_come_from_tmpfiles(root: dict[str, Entry]) -> None:
    lines = [
        line.split()
        for path in below(root, "usr/lib/tmpfiles.d")
        for line in oci.content(root[path]).decode().splitlines()
    ]
    made = {line[1]: line[2] for line in lines if len(line) > 2 and line[0][0] in "dDqQvL"}
    for target in (
        "/var/home",
        "/var/roothome",
        "/var/opt",
        "/var/srv",
        "/var/mnt",
        "/var/usrlocal",
        "/var/log/journal",
    ):
        assert target in made
    assert made["/var/roothome"] == "0700"
    assert "/var/lib/dpkg" in made
    assert not {"/home", "/root", "/srv"} & set(made)  # links: systemd-tmpfiles would complain
    assert "usr/lib/sysimage/dpkg/status" in root


def test_it_is_small_and_dated(root: dict[str, Entry]) -> None:
    assert sum(entry.size for entry in root.values()) < 500_000_000
    assert max(entry.mtime for entry in root.values()) == oddities.SOURCE_DATE_EPOCH
