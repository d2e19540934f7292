"""The probe of this host's own /dev/kvm, with a real kernel."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from pytest_bootc.command import find_program
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.cache import Cache, default_home
from pytest_bootc.disk.live import Workshop, build_live_disk
from pytest_bootc.image import ImageReference
from pytest_bootc.machine.accel import choose_accelerator
from pytest_bootc.model import Accelerator
from pytest_bootc.progress import Silent
from pytest_bootc.source import source_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="there is no /dev/kvm to probe"),
]


def test_the_probe_keeps_its_time_and_its_answer(image_layout: dict[str, Path], tmp_path: Path) -> None:
    """A /dev/kvm that opens may still not run a kernel: it is tried, for three seconds at most, and once."""
    reference = ImageReference.parse(f"oci:{image_layout['server']}:latest")
    source = source_for(reference)
    deadline = Deadline.after(300)
    workshop = Workshop(Cache(default_home()), deadline, Silent(), 40)
    kernel = build_live_disk(source.resolve(reference, deadline), source, workshop).kernel
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
