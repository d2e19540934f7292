"""What executes the guest: KVM where it really runs one, else QEMU's own translator (TCG)."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from pytest_bootc.command import CommandError, run
from pytest_bootc.deadline import Deadline
from pytest_bootc.model import Accelerator

_PROBE_SECONDS = 3.0
_DEVICE = Path("/dev/kvm")
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
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    name = hashlib.sha256(f"{boot_id} {version} {kernel}".encode()).hexdigest()[:16]
    record = state / f"kvm-{name}.json"
    try:
        works = bool(json.loads(record.read_text()))
    except (FileNotFoundError, json.JSONDecodeError):
        works = _kvm_runs(qemu, kernel)
        state.mkdir(parents=True, exist_ok=True)
        scratch = record.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps(works))
        scratch.rename(record)
    return Accelerator.KVM if works else Accelerator.TCG


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
