"""The system is laid out as one that is updated as a whole: what is the image's is read-only, the rest can be written.

Source: "Filesystem layout" of bootc's documentation, os-release(5), machine-id(5).
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Sequence

import pytest

from pytest_bootc.guest import Guest
from pytest_bootc.system import Mount

_ID = re.compile(r"[a-z0-9._-]+")
_MACHINE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
_VERSIONS = ("VERSION_ID", "BUILD_ID", "IMAGE_VERSION", "IMAGE_ID")
_ENGLISH = {"LC_ALL": "C"}
_PREPARED = ("/etc/ostree/prepare-root.conf", "/usr/lib/ostree/prepare-root.conf")
# Else it is *no*, or *maybe*: where the deployment has been written for it.
_COMPOSEFS = ("1", "true", "yes", "signed", "verity")
_IMAGE_TYPES = ("overlay", "erofs", "composefs")
_COMPRESSED = ("compress=", "compress-force=")
_TRY_USR = "touch /usr/.pytest-bootc && rm /usr/.pytest-bootc"
_TRY_OTHERS = """
failed=
for folder in /etc /var /var/tmp /tmp ~root; do
    { touch "$folder/.pytest-bootc" && rm "$folder/.pytest-bootc"; } || failed="$failed $folder"
done
echo $failed
"""


def test_usr_cannot_be_written(guest: Guest) -> None:
    """/usr is mounted read-only, and the kernel refuses to write there: updates replace it as a whole."""
    mount = mount_of("/usr", guest.mounts())
    assert mount.read_only, f"/usr is on {mount.source} ({mount.type}), which is mounted {','.join(mount.options)}"
    result = guest.execute(_TRY_USR, env=_ENGLISH)
    assert result.status != 0, "/usr is mounted read-only, and yet a file could be made there"
    assert "Read-only file system" in result.stderr, f"/usr was not written for another reason: {result.stderr.strip()}"


def test_the_rest_can_be_written(guest: Guest) -> None:
    """/etc, /var, /var/tmp, /tmp and root's home are there and can be written, as configuration and state must be.

    Where /root leads into /var, something has to make it at boot (tmpfiles.d(5)).
    """
    result = guest.execute(_TRY_OTHERS, env=_ENGLISH)
    failed = result.stdout.split()
    assert not failed, f"cannot be written: {', '.join(failed)}\n{result.stderr.strip()}"
    assert result.status == 0, f"the folders could not be tried: {result.stderr.strip()}"


def test_the_system_says_what_it_is(guest: Guest) -> None:
    """/etc/os-release has an ID of the form that os-release(5) asks for, and says which version or image it is.

    That is one of VERSION_ID, BUILD_ID (rolling distributions), IMAGE_VERSION and IMAGE_ID.
    """
    release = guest.os_release()
    name = release.get("ID", "")
    assert _ID.fullmatch(name), f"/etc/os-release has ID={name!r}: write lower-case letters, digits, '.', '_', '-'"
    versions = [key for key in _VERSIONS if release.get(key)]
    assert versions, f"/etc/os-release has no version: give it one of {', '.join(_VERSIONS)}"


def test_the_machine_has_an_id(guest: Guest) -> None:
    """/etc/machine-id has been set by the boot: 32 hexadecimal digits, not all of them 0 (machine-id(5)).

    Without it there is no journal, no DHCP lease of one's own, and D-Bus does not start.
    """
    result = guest.execute(["cat", "/etc/machine-id"])
    assert result.status == 0, f"there is no machine id: {result.stderr.strip()}"
    value = result.stdout.strip()
    assert _MACHINE_ID.fullmatch(value), f"/etc/machine-id has {value!r}, which is not 32 hexadecimal digits"


def test_the_deployment_is_known(guest: Guest) -> None:
    """A deployed system knows what it has booted, and which image that was installed from (bootc-status(8)).

    Not judged where the root is no deployment: a live disk, a disk that was made in another way.
    """
    deployment = guest.deployment()
    if deployment is None:
        pytest.skip("not judged: the root is not a deployment of bootc or ostree")
    assert deployment.booted is not None, f"{deployment.provider} does not know which deployment is booted"
    if deployment.provider == "bootc":
        assert deployment.booted.image, "bootc knows no image of the booted deployment, so it cannot update it"


@pytest.mark.needs("deployment", f"command:[ -e {_PREPARED[0]} ] || [ -e {_PREPARED[1]} ]")
def test_the_root_is_as_it_was_prepared(guest: Guest) -> None:
    """Where composefs is asked for, the root is such an image, which nobody can change file by file.

    It is asked for in prepare-root.conf (ostree-prepare-root(1)): an initramfs that was made before that was written
    does not know of it, and boots a root that can be made writable.
    """
    text = guest.succeed(f"cat {_PREPARED[0]} 2>/dev/null || cat {_PREPARED[1]}")
    settings = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        settings.read_string(text)
    except configparser.Error as error:
        raise AssertionError(f"prepare-root.conf cannot be read: {error}") from None
    wanted = settings.get("composefs", "enabled", fallback="no")
    if wanted not in _COMPOSEFS:
        pytest.skip(f"not judged: prepare-root.conf has composefs.enabled={wanted}")
    mount = mount_of("/", guest.mounts())
    assert mount.type in _IMAGE_TYPES, f"the root is to be composefs, and is {mount.type} on {mount.source}"


@pytest.mark.needs("command:grep -q ' - btrfs ' /proc/self/mountinfo")
def test_btrfs_compresses(guest: Guest) -> None:
    """What lies on btrfs is compressed: the file systems of the system are mounted with *compress* (btrfs(5)).

    Two deployments and the containers of a desktop take half as much again without.
    """
    mounts = guest.mounts()
    on_btrfs = [mount for path in ("/", "/sysroot", "/var") if (mount := mount_of(path, mounts)).type == "btrfs"]
    if not on_btrfs:
        pytest.skip("not judged: neither the root nor /var is on btrfs")
    plain = [mount.target for mount in on_btrfs if not any(map(_is_compressing, mount.super_options))]
    assert not plain, f"on btrfs, and not compressed: {', '.join(dict.fromkeys(plain))}"


def _is_compressing(option: str) -> bool:
    return option.startswith(_COMPRESSED) and not option.endswith("=no")


def mount_of(path: str, mounts: Sequence[Mount]) -> Mount:
    """The mount that a path is on: the deepest one, and of several on one folder the last."""
    above = [mount for mount in mounts if path == mount.target or path.startswith(f"{mount.target.rstrip('/')}/")]
    return max(reversed(above), key=lambda mount: len(mount.target))
