"""Nothing has crashed since the machine was switched on: not the kernel, not the initramfs, no process."""

from __future__ import annotations

import re

import pytest

from pytest_bootc.guest import Guest
from pytest_bootc.machine.console import ConsoleLog
from pytest_bootc.machine.pool import VM

# Kernel messages begin a line, or stand right behind the time and (CONFIG_PRINTK_CALLER) the task. What a process
# has logged has the process's name in between, so that a message which quotes these words does not count.
_KERNEL = r"(?:\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? )?"
_TROUBLE = {
    "the kernel panicked": rf"{_KERNEL}Kernel panic - not syncing",
    "the kernel made an error": rf"{_KERNEL}(?:BUG: (?!soft lockup)|kernel BUG at|Oops:|general protection fault"
    r"|invalid opcode:|double fault:|int3: |Internal error: |Unable to handle kernel)",
    "a process was killed for want of memory": rf"{_KERNEL}(?:Memory cgroup out of memory|Out of memory): Killed",
    "the initramfs failed": rf"{_KERNEL}(?:Initramfs unpacking failed|VFS: Unable to mount root fs"
    r"|dracut(?:-\w+)?(?:\[\d+\])?: (?:FATAL|Warning: .*timeout)|pytest-bootc-init: cannot"
    r"|ALERT! +\S+ does not exist|ERROR: Failed to mount)",
    "an emergency shell was opened": r"(?:You are in (?:emergency|rescue) mode|Entering emergency mode"
    r"|Give root password for maintenance|Press Enter for maintenance|\(initramfs\)|:: running emergency hook)",
    "systemd gave up": rf"(?:{_KERNEL}systemd\[1\]: Freezing execution|\[!!!!!!\] )",
}
_RULES = {name: re.compile(pattern) for name, pattern in _TROUBLE.items()}
# Bits of the taint mask that say that something went wrong, as the kernel's tainted-kernels.rst has them. Others
# tell of modules and of warnings.
_TAINTS = {4: "a machine check (M)", 5: "a bad page (B)", 7: "an oops or BUG (D)"}


def test_the_console_is_clean(vm: VM) -> None:
    """The serial console shows no panic, no oops, no killed process, no failed initramfs and no emergency shell.

    The console has what no journal keeps: the initramfs, and the last words of a kernel.
    """
    found = console_trouble(ConsoleLog(vm.console_log()).text())
    told = "\n".join(f"  {what}: {line}" for line, what in found)
    assert not found, f"the console shows trouble:\n{told}"


def test_the_kernel_is_well(guest: Guest) -> None:
    """The kernel has not marked itself as tainted by an error of its own (/proc/sys/kernel/tainted).

    Source: tainted-kernels.rst of the kernel's documentation. Modules from elsewhere, which also taint, are no fault.
    """
    taint = guest.facts().taint
    errors = [name for bit, name in _TAINTS.items() if taint & 1 << bit]
    assert not errors, f"the kernel is tainted by {' and '.join(errors)}: its mask is {taint}"


def test_no_process_has_dumped_core(guest: Guest) -> None:
    """No process has crashed since the boot, as far as systemd-coredump(8) has caught it.

    Not judged where the kernel hands cores to something else (core(5), kernel.core_pattern).
    """
    pattern = guest.succeed(["cat", "/proc/sys/kernel/core_pattern"]).strip()
    if "systemd-coredump" not in pattern:
        pytest.skip(f"not judged: systemd-coredump does not catch crashes here (kernel.core_pattern is {pattern!r})")
    dumps = guest.coredumps()
    names = [dump.executable for dump in dumps]
    told = "\n".join(f"  {dump}, unit {dump.unit or 'none'}: {dump.message}" for dump in dumps)
    assert not names, f"processes have crashed:\n{told}"


def console_trouble(text: str) -> list[tuple[str, str]]:
    """The lines of a console that tell of trouble, each with what it tells."""
    return [
        (line, next(what for what, rule in _RULES.items() if rule.match(line)))
        for line in map(str.strip, text.splitlines())
        if any(rule.match(line) for rule in _RULES.values())
    ]
