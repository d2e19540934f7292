"""What runs is the image that was to be judged: its kernel, its files, and nothing of the laboratory's among them."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Mapping

import pytest

from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.contents import package_databases
from pytest_bootc.disk.live import file_hashes
from pytest_bootc.guest import Guest
from pytest_bootc.machine.pool import VM
from pytest_bootc.model import GoldenDisk, LiveDisk

#: The variable that has the same files chosen once more.
SEED_VARIABLE = "BOOTC_FILES_SEED"

_FILES = 50
_HASH_SECONDS = 60.0
_AGENT = "/etc/pytest-bootc/agent"
# Everything that a machine brings along for a live disk. What a file's file system is, its device number tells: in an
# overlay each layer has one of its own, or (xino) its own highest bits of the inode number.
_OURS = re.compile(
    r"/etc/pytest-bootc/.*"
    r"|/etc/systemd/system/([^/]+\.wants/)?pytest-bootc-[^/]+\.service"
    r"|/etc/ssh/sshd_config\.d/00-pytest-bootc\.conf"
)
_LAYER_BITS = 56
_LIST_ETC = "find /etc ! -type d -exec stat -c '%d %i %n' {} +"


@pytest.mark.needs("live")
def test_the_kernel_is_the_images(guest: Guest, golden_disk: GoldenDisk) -> None:
    """The kernel that runs is the one that the image has below /usr/lib/modules."""
    assert isinstance(golden_disk, LiveDisk)
    running = guest.kernel_release()
    assert running == golden_disk.kernel_release, (
        f"the kernel that runs is {running}, and the image's is {golden_disk.kernel_release}"
    )


@pytest.mark.needs("live")
def test_the_files_are_the_images(
    vm: VM, guest: Guest, golden_disk: GoldenDisk, request: pytest.FixtureRequest
) -> None:
    """Files of /usr that are chosen at random, and the package database, are what the image's layers have.

    What was expected are hashes of the layers, whose own digests were verified when they were pulled; so a pass means
    that the image of this digest was judged, and no other. ``BOOTC_FILES_SEED`` has the same files chosen again.
    """
    assert isinstance(golden_disk, LiveDisk)
    seed = os.environ.get(SEED_VARIABLE) or str(random.SystemRandom().randrange(10**9))
    # Not by record_property, which warns beside --junitxml.
    request.node.user_properties.append(("files_seed", seed))
    expected = chosen(file_hashes(golden_disk), seed)
    found = guest.within(Deadline.after(_HASH_SECONDS * vm.facts.time_factor)).hash_files(expected)
    different = [path for path, value in expected.items() if found.get(path) != value]
    told = "\n".join(
        f"  {path}: expected sha256 {expected[path]}, got {found.get(path, 'no file that can be read')}"
        for path in different
    )
    assert not different, (
        f"{len(different)} of {len(expected)} files are not the image's ({SEED_VARIABLE}={seed} chooses them again):"
        f"\n{told}"
    )


@pytest.mark.needs("live")
def test_nothing_of_ours_is_among_the_images_files(guest: Guest) -> None:
    """The machine brings along its keys and its units, each in a place of its own in /etc, and no other file.

    So what is judged is what ships. Which files come with the machine is asked of the guest's kernel, not of
    whoever made them.
    """
    listed = guest.succeed(_LIST_ETC)
    layers: dict[str, tuple[int, int]] = {}
    for line in listed.splitlines():
        device, inode, path = line.split(" ", 2)
        layers[path] = int(device), int(inode) >> _LAYER_BITS
    assert _AGENT in layers, f"{_AGENT} is gone, so the machine's own files cannot be told from the image's"
    strangers = sorted(path for path, layer in layers.items() if layer == layers[_AGENT] and not _OURS.fullmatch(path))
    assert not strangers, f"files of the test machine lie where the image's are: {', '.join(strangers)}"


def chosen(hashes: Mapping[str, str], seed: str) -> dict[str, str]:
    """Some of the files, the same for the same seed, and every package database."""
    paths = sorted(hashes)
    sample = random.Random(seed).sample(paths, min(_FILES, len(paths)))
    return {path: hashes[path] for path in sorted({*sample, *package_databases(paths)})}
