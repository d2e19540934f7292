"""What QEMU's machines reserve. None of them is started."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_bootc.errors import ProvisionError
from pytest_bootc.machine.memory import HOST, needed
from pytest_bootc.machine.qemu_backend import QemuBackend
from pytest_bootc.model import Accelerator, DiskFile, MachineSpec, RunConfig
from pytest_bootc.progress import SILENT

pytestmark = pytest.mark.integration

SPEC = MachineSpec(memory_mib=128)


def test_a_machine_has_its_claim_as_long_as_it_is_there(tmp_path: Path) -> None:
    disk = DiskFile(tmp_path / "disk", "raw", uefi=False)
    with QemuBackend(RunConfig(), tmp_path).provision(SPEC, disk) as machine:
        claim = json.loads((tmp_path / "vms" / machine.name / "claim").read_text())
        assert claim["granted"]
        assert claim["mib"] == needed(128, Accelerator(machine.facts.accelerator), HOST.room())
    assert list((tmp_path / "vms").glob("vm-*")) == []


@pytest.mark.parametrize("waiting", [SILENT, None])
def test_a_machine_that_the_host_is_too_small_for(tmp_path: Path, waiting: object) -> None:
    disk = DiskFile(tmp_path / "disk", "raw", uefi=False)
    spec = replace(SPEC, memory_mib=HOST.room().total)
    with (
        pytest.raises(ProvisionError, match="this host is too small for the machine"),
        QemuBackend(RunConfig(), tmp_path).provision(spec, disk, waiting),
    ):
        pass
    assert list((tmp_path / "vms").glob("vm-*")) == []
