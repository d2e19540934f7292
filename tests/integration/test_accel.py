"""The probe of this host's own /dev/kvm, with a real kernel."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_bootc.command import find_program
from pytest_bootc.machine.accel import choose_accelerator
from pytest_bootc.model import Accelerator, LiveDisk

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="there is no /dev/kvm to probe"),
]


def test_the_probe_keeps_its_time_and_its_answer(live_disk: Callable[[str], LiveDisk], tmp_path: Path) -> None:
    """A /dev/kvm that opens may still not run a kernel: it is tried, for three seconds at most, and once."""
    kernel = live_disk("server").kernel
    qemu = find_program("qemu-system-x86_64", resolution="install QEMU")
    began = time.monotonic()
    chosen = choose_accelerator(qemu, "of this host", kernel, tmp_path / "probes")
    assert time.monotonic() - began < 10  # 3 s, and what a loaded host takes to start and end QEMU
    (record,) = (tmp_path / "probes").iterdir()
    assert record.suffix == ".json"
    assert json.loads(record.read_text()) is (chosen is Accelerator.KVM)
    # The second answer is the kept one: this QEMU does not even exist.
    assert choose_accelerator(Path("/nowhere/qemu"), "of this host", kernel, tmp_path / "probes") is chosen
    # Nor does a QEMU that cannot be started run anything on KVM.
    assert choose_accelerator(Path("/nowhere/qemu"), "another", kernel, tmp_path / "probes") is Accelerator.TCG
