"""What a machine writes to: a disk of its own over one that stays as it is, and the variables of its firmware."""

from __future__ import annotations

import shutil
from pathlib import Path

from pytest_bootc.command import Argument, CommandError, find_program, run
from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import ProvisionError
from pytest_bootc.machine.firmware import Firmware
from pytest_bootc.model import GoldenDisk, LiveDisk

_INSTALL = "install qemu-img (Debian: qemu-utils, Fedora: qemu-img), or run scripts/setup"
_SECONDS = 30.0


def make_overlay(disk: GoldenDisk, overlay: Path, qemu: Path, empty_gib: int, saved: Path | None = None) -> None:
    """Make the qcow2 file that takes what a machine writes.

    It lies over the disk or, on a live disk, its /var. An ISO takes no writes: the file is then an empty disk of
    ``empty_gib`` GiB for a system to be installed on. ``qemu`` may have its own qemu-img beside it. ``saved`` is what
    a machine has written by the time it was saved: it goes on from there.

    :raises ConfigError: qemu-img is not installed.
    :raises ProvisionError: it could not make the file.
    """
    beside = qemu.with_name("qemu-img")
    program = beside if beside.exists() else find_program("qemu-img", resolution=_INSTALL)
    arguments: list[Argument] = [program, "create", "-q", "-f", "qcow2"]
    if saved is not None:
        arguments += ["-b", saved, "-F", "qcow2", overlay]
    elif isinstance(disk, LiveDisk):
        arguments += ["-b", disk.var, "-F", "raw", overlay]
    elif disk.format == "iso":
        arguments += [overlay, f"{empty_gib}G"]
    else:
        arguments += ["-b", disk.path, "-F", disk.format, overlay]
    try:
        run(arguments, deadline=Deadline.after(_SECONDS))
    except CommandError as error:
        raise ProvisionError("the machine's disk could not be made", details=str(error)) from error


def copy_variables(firmware: Firmware, path: Path) -> None:
    """Give a machine variables of its own, as the firmware comes with them.

    :raises ProvisionError: they could not be copied.
    """
    try:
        shutil.copyfile(firmware.variables, path)
    except OSError as error:
        raise ProvisionError(f"the firmware's variables could not be copied: {error}") from error
