"""Nothing has crashed since the machine was switched on: not the kernel, not the initramfs, no process."""

from __future__ import annotations

import pytest

from pytest_bootc.guarding import Exempting
from pytest_bootc.guest import Guest
from pytest_bootc.machine.pool import VM
from pytest_bootc.model import Finding, Trouble

# Bits of the taint mask that say that something went wrong, as the kernel's tainted-kernels.rst has them. Others
# tell of modules and of warnings.
_TAINTS = {4: "a machine check (M)", 5: "a bad page (B)", 7: "an oops or BUG (D)"}


def test_the_console_is_clean(vm: VM, exemptions: Exempting) -> None:
    """The serial console shows no panic, no oops, no killed process, no failed initramfs and no emergency shell.

    The console has what no journal keeps: the initramfs, and the last words of a kernel. It is watched all the time;
    this test tells what it showed until now.
    """
    # Not judged where the machine has none.
    vm.console_log()
    found = exemptions.without(vm.findings())
    told = "\n".join(str(finding) for finding in found)
    assert not found, f"the console shows trouble: {told}"


def test_the_kernel_is_well(guest: Guest) -> None:
    """The kernel has not marked itself as tainted by an error of its own (/proc/sys/kernel/tainted).

    Source: tainted-kernels.rst of the kernel's documentation. Modules from elsewhere, which also taint, are no fault.
    """
    taint = guest.facts().taint
    errors = [name for bit, name in _TAINTS.items() if taint & 1 << bit]
    assert not errors, f"the kernel is tainted by {' and '.join(errors)}: its mask is {taint}"


def test_no_process_has_dumped_core(guest: Guest, exemptions: Exempting) -> None:
    """No process has crashed since the boot, as far as systemd-coredump(8) has caught it.

    Not judged where the kernel hands cores to something else (core(5), kernel.core_pattern).
    """
    pattern = guest.succeed(["cat", "/proc/sys/kernel/core_pattern"]).strip()
    if "systemd-coredump" not in pattern:
        pytest.skip(f"not judged: systemd-coredump does not catch crashes here (kernel.core_pattern is {pattern!r})")
    dumped = {Finding(Trouble.COREDUMP, str(dump)): dump for dump in guest.coredumps()}
    dumps = [dumped[finding] for finding in exemptions.without(list(dumped))]
    names = [dump.executable for dump in dumps]
    told = "\n".join(f"  {dump}, unit {dump.unit or 'none'}: {dump.message}" for dump in dumps)
    assert not names, f"processes have crashed:\n{told}"
