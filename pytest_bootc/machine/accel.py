"""What executes the guest: which QEMU, and KVM where it really runs one, else QEMU's own translator (TCG)."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from pathlib import Path

from pytest_bootc.command import CommandError, run
from pytest_bootc.deadline import Deadline
from pytest_bootc.model import Accelerator

_PROBE_SECONDS = 3.0
_ANSWER_SECONDS = 10.0
_DEVICE = Path("/dev/kvm")
_HOST_KERNELS = ("/usr/lib/modules/{}/vmlinuz", "/boot/vmlinuz-{}")
# The kernel's last words when it has no root: by then it has set up memory, interrupts, all processors and its
# drivers. A /dev/kvm that opens says nothing: nested and restricted ones open, and the guest never gets that far.
_FAR_ENOUGH = b"Unable to mount root fs"

# In emulation, the smallest processor that the image's C library accepts: its string functions for AVX alone cost a
# fifth of a boot. And one without Meltdown, so that the kernel by itself leaves its page tables in one piece, which
# costs two fifths: nothing is switched off for that, the guest decides on its mitigations as on such a machine.
_TCG_MODELS = {
    "x86-64-v1": "Opteron_G3",
    "x86-64-v2": "Nehalem,vendor=AuthenticAMD",
    "x86-64-v3": "EPYC",
    "x86-64-v4": "max",
}

REFERENCE_HELLO_SECONDS = 1.5
"""From the start of QEMU until the agent in a small guest says hello, on KVM."""


def cpu_model(accelerator: Accelerator, isa_level: str) -> str:
    """QEMU's name for the processor to show to the guest."""
    return "host" if accelerator is Accelerator.KVM else _TCG_MODELS.get(isa_level, "max")


def choose_accelerator(qemu: Path, version: str, kernel: Path, state: Path) -> Accelerator:
    """KVM where this kernel boots on it, else TCG; what was found is kept for this boot of the host in ``state``."""
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return Accelerator.TCG
    record = state / f"kvm-{_host(version)}-{_short_hash(str(kernel))}.json"
    try:
        works = bool(json.loads(record.read_text()))
    except (FileNotFoundError, json.JSONDecodeError):
        works = _kvm_runs(qemu, kernel)
        state.mkdir(parents=True, exist_ok=True)
        scratch = record.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps(works))
        scratch.rename(record)
    return Accelerator.KVM if works else Accelerator.TCG


def choose_without_kernel(qemu: Path, version: str, state: Path) -> tuple[Accelerator, str]:
    """The same for a disk whose kernel cannot be had before it boots; and why, where KVM was not even tried.

    Firmware and bootloader prove nothing: some hosts run both on KVM, and then no kernel. What counts is what any
    kernel has shown on this boot of the host, and else what the host's own kernel shows as a guest.
    """
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return Accelerator.TCG, ""
    known = [record.read_text() == "true" for record in state.glob(f"kvm-{_host(version)}-*.json")]
    if known:
        return (Accelerator.KVM if any(known) else Accelerator.TCG), ""
    for pattern in _HOST_KERNELS:
        kernel = Path(pattern.format(platform.release()))
        if os.access(kernel, os.R_OK):
            return choose_accelerator(qemu, version, kernel, state), ""
    return Accelerator.TCG, "KVM was not tried: the host has no kernel to try it with; a run with --image brings one"


def _host(version: str) -> str:
    """A name for this boot of the host and this version of QEMU."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return _short_hash(f"{boot_id} {version}")


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _kvm_runs(qemu: Path, kernel: Path) -> bool:
    """Whether the kernel comes to the end of its own start, without a root to go on with."""
    arguments = ["-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-accel", "kvm"]
    arguments += ["-cpu", "host", "-m", "512", "-kernel", os.fspath(kernel), "-no-reboot"]
    arguments += ["-append", "console=ttyS0 earlyprintk=ttyS0 panic=-1", "-serial", "stdio"]
    deadline = Deadline.after(_PROBE_SECONDS)
    try:
        done = run([qemu, *arguments], deadline=deadline, check=False)
    except CommandError:
        # It hung, or could not be started at all: no KVM for this run.
        return False
    return _FAR_ENOUGH in done.stdout


def qemu_version(qemu: Path) -> str:
    """What a QEMU says that its version is."""
    words = run([qemu, "--version"], deadline=Deadline.after(_ANSWER_SECONDS)).stdout.decode(errors="replace")
    match = re.search(r"version (\S+)", words)
    return match[1] if match else "of unknown version"


def has_pvh_rom(qemu: Path) -> bool:
    """Whether this QEMU can boot an ELF kernel: it needs a small option ROM for that, which some builds leave out."""
    listed = run([qemu, "-L", "help"], deadline=Deadline.after(_ANSWER_SECONDS), check=False).stdout
    folders = listed.decode(errors="replace").split("\n")
    return any((Path(folder) / "pvh.bin").exists() for folder in folders if folder.startswith("/"))
