"""What QEMU there is on this host, and with which processor and firmware it runs a machine."""

from __future__ import annotations

from pathlib import Path

from pytest_bootc.command import find_program
from pytest_bootc.machine.accel import choose_accelerator, choose_without_kernel, cpu_model, has_pvh_rom, qemu_version
from pytest_bootc.machine.firmware import Firmware, descriptor_folders, find_firmware
from pytest_bootc.machine.qemu_command import Engine
from pytest_bootc.model import DiskFile, GoldenDisk, LiveDisk, MachineSpec

_INSTALL = "install QEMU for x86 (Debian: qemu-system-x86, Fedora: qemu-system-x86-core), or run scripts/setup"
_ANY_ISA_LEVEL = "x86-64-v4"


def choose_engine(spec: MachineSpec, disk: GoldenDisk, probes: Path) -> tuple[Engine, str]:
    """The programs, processor and firmware for a machine, and QEMU's version.

    ``probes`` is the folder that remembers whether KVM runs guests here.

    :raises ConfigError: QEMU is not installed.
    """
    qemu = find_program(spec.qemu, resolution=_INSTALL)
    beside = qemu.with_name("qemu-storage-daemon")
    daemon = beside if beside.exists() else find_program("qemu-storage-daemon", resolution=_INSTALL)
    version = qemu_version(qemu)
    if isinstance(disk, LiveDisk):
        accelerator = choose_accelerator(qemu, version, disk.kernel, probes)
        model = cpu_model(accelerator, disk.isa_level)
        return Engine(qemu, daemon, accelerator, model, pvh=has_pvh_rom(qemu)), version
    accelerator, remark = choose_without_kernel(qemu, version, probes)
    firmware = find_firmware(descriptor_folders()) if disk.uefi else None
    remarks = (*_remarks(disk, firmware, spec), *([remark] if remark else []))
    model = cpu_model(accelerator, _ANY_ISA_LEVEL)
    return Engine(qemu, daemon, accelerator, model, pvh=False, firmware=firmware, remarks=remarks), version


def _remarks(disk: DiskFile, firmware: Firmware | None, spec: MachineSpec) -> list[str]:
    name = f"UEFI without Secure Boot ({firmware.code.name})" if firmware else "the BIOS of QEMU"
    place = f", as a CD-ROM beside an empty disk of {spec.var_gib} GiB" if disk.format == "iso" else ""
    return [
        f"disk {disk.path.name} ({disk.format}){place}; firmware: {name}",
        "the disk's own bootloader sets the kernel's arguments, and so whether there is anything on the serial console",
    ]
