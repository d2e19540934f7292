from __future__ import annotations

from pathlib import Path

import pytest

from pytest_bootc.evidence import reproduce_line
from pytest_bootc.image import Digest, ImageReference
from pytest_bootc.model import DiskFile, Evidence, MachineSpec, Network, RunConfig

IMAGE = ImageReference.parse("quay.io/x/y:z").pinned(Digest.parse(f"sha256:{'a' * 64}"))


def test_the_image_is_pinned_and_defaults_are_left_out() -> None:
    config = RunConfig(images=(IMAGE,), suites=("boot",), evidence=Evidence.ON)
    assert reproduce_line(config, IMAGE, "boot/test_boot.py::test_it[y:z]") == (
        f"pytest --image quay.io/x/y:z@sha256:{'a' * 64} 'boot/test_boot.py::test_it[y:z]'"
    )


def test_what_the_machine_was_made_of_is_said() -> None:
    spec = MachineSpec(memory_mib=4096, cpus=4, network=Network.NONE, qemu="/opt/my qemu")
    line = reproduce_line(RunConfig(images=(IMAGE,), spec=spec, boot_timeout=300.0, backend="fake"), IMAGE, "a.py::b")
    assert line.partition(" --backend ")[2] == (
        "fake --vm-network none --vm-memory 4096 --vm-cpus 4 --qemu '/opt/my qemu' --boot-timeout 300 a.py::b"
    )


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (RunConfig(host="root@[2001:db8::5]:22", backend="remote"), "--host 'root@[2001:db8::5]:22'"),
        (RunConfig(disk=DiskFile(Path("/a b/c.qcow2"), "qcow2", uefi=True)), "--disk '/a b/c.qcow2'"),
    ],
)
def test_other_subjects(config: RunConfig, words: str) -> None:
    assert reproduce_line(config, None, "a.py::b") == f"pytest {words} a.py::b"


def test_the_environment_stands_in_front() -> None:
    line = reproduce_line(RunConfig(host="h"), None, "a.py::b", {"BOOTC_FILES_SEED": "a b"})
    assert line == "BOOTC_FILES_SEED='a b' pytest --host h a.py::b"
