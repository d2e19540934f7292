"""What is chosen to execute a guest; QEMU is played by programs that print what it would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_bootc.machine import accel
from pytest_bootc.machine.accel import choose_accelerator, choose_without_kernel
from pytest_bootc.model import Accelerator

WORKS = "echo 'Kernel panic: Unable to mount root fs on unknown-block(0,0)'"
HANGS = "exec sleep 60"
ABORTS = "echo 'failed to set MSR' >&2; exit 134"


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A host with a /dev/kvm and no kernel of its own, and a QEMU that does as it is told."""
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(accel, "_DEVICE", device)
    monkeypatch.setattr(accel, "_HOST_KERNELS", ())
    monkeypatch.setattr(accel, "_PROBE_SECONDS", 0.5)

    def make(script: str) -> Path:
        program = tmp_path / "qemu"
        program.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/called\n{script}\n')
        program.chmod(0o755)
        return program

    return make


def calls(tmp_path: Path) -> list[str]:
    file = tmp_path / "called"
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize(
    ("script", "chosen"), [(WORKS, Accelerator.KVM), (HANGS, Accelerator.TCG), (ABORTS, Accelerator.TCG)]
)
def test_kvm_is_tried_once(tmp_path: Path, qemu: Callable[[str], Path], script: str, chosen: Accelerator) -> None:
    program = qemu(script)
    for _ in range(2):
        assert choose_accelerator(program, "8.2", Path("/kernel"), tmp_path / "probes") is chosen
    assert len(calls(tmp_path)) == 1
    assert "-accel kvm" in calls(tmp_path)[0]
    choose_accelerator(program, "9.0", Path("/kernel"), tmp_path / "probes")
    assert len(calls(tmp_path)) == 2


@pytest.mark.parametrize(("script", "chosen"), [(WORKS, Accelerator.KVM), (ABORTS, Accelerator.TCG)])
def test_a_disk_file_goes_by_what_a_kernel_has_shown(
    tmp_path: Path, qemu: Callable[[str], Path], script: str, chosen: Accelerator
) -> None:
    program = qemu(script)
    choose_accelerator(program, "8.2", Path("/kernel"), tmp_path / "probes")
    assert choose_without_kernel(program, "8.2", tmp_path / "probes") == (chosen, "")
    assert len(calls(tmp_path)) == 1


def test_one_kernel_that_ran_is_enough(tmp_path: Path, qemu: Callable[[str], Path]) -> None:
    choose_accelerator(qemu(ABORTS), "8.2", Path("/broken"), tmp_path / "probes")
    choose_accelerator(qemu(WORKS), "8.2", Path("/kernel"), tmp_path / "probes")
    assert choose_without_kernel(qemu(ABORTS), "8.2", tmp_path / "probes") == (Accelerator.KVM, "")


def test_what_another_qemu_showed_does_not_count(tmp_path: Path, qemu: Callable[[str], Path]) -> None:
    program = qemu(WORKS)
    choose_accelerator(program, "8.2", Path("/kernel"), tmp_path / "probes")
    chosen, remark = choose_without_kernel(program, "9.0", tmp_path / "probes")
    assert (chosen, remark[:21]) == (Accelerator.TCG, "KVM was not tried: th")
    assert len(calls(tmp_path)) == 1


def test_the_hosts_own_kernel_is_tried(
    tmp_path: Path, qemu: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel.platform, "release", lambda: "6.1")
    monkeypatch.setattr(accel, "_HOST_KERNELS", (f"{tmp_path}/none-{{}}", f"{tmp_path}/vmlinuz-{{}}"))
    (tmp_path / "vmlinuz-6.1").touch()
    for _ in range(2):
        assert choose_without_kernel(qemu(WORKS), "8.2", tmp_path / "probes") == (Accelerator.KVM, "")
    assert len(calls(tmp_path)) == 1
    assert f"-kernel {tmp_path}/vmlinuz-6.1" in calls(tmp_path)[0]


def test_a_host_without_kvm_has_nothing_to_say(
    tmp_path: Path, qemu: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel, "_DEVICE", tmp_path / "none")
    assert choose_without_kernel(qemu(WORKS), "8.2", tmp_path / "probes") == (Accelerator.TCG, "")
    assert choose_accelerator(qemu(WORKS), "8.2", Path("/kernel"), tmp_path / "probes") is Accelerator.TCG
    assert calls(tmp_path) == []
