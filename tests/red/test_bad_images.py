"""Images that are broken, and guests that break while they are judged: each is the image's failure, and is named.

Lines that systemd, kernel or a program of the guest prints are quoted as they came.
"""

from __future__ import annotations

import pytest
from harness import Book, Case

pytestmark = [pytest.mark.integration, pytest.mark.qemu]

BOOT = ("--suite", "boot")

# The first test boots the machine, so that the time of the second is its own.
_FILE = """\
def test_up(guest):
    assert guest.boot_id()

def test_break(ssh, guest, vm):
{}

def test_after(guest):
    guest.succeed("true")
"""
_RECOVERED = {"test_up": "pass", "test_break": "fail", "test_after": "pass"}


def inner(*lines: str) -> str:
    """A test file: one test that boots, one of these lines, one that finds a machine that is well."""
    return _FILE.format("\n".join(f"    {line}" for line in lines))


def kmsg(line: str) -> str:
    """A line of the kernel's log, as the kernel itself would print it (there is no lkdtm to make it do so)."""
    return f"""ssh.succeed("echo '{line}' >/dev/kmsg")"""


# What freezes everything but systemd itself: sshd, its sessions, and the machine's own agent.
_FREEZE = "sleep 2; for g in user system; do echo 1 >/sys/fs/cgroup/$g.slice/cgroup.freeze; done"
# What is denied by a rule is not told; what no rule allows is.
_PROFILE = "profile denied /var/denied { /usr/lib/** rm, /etc/ld.so.cache r, /var/denied rm, }"

CASES = [
    Case(
        "failing unit",
        "an enabled service exits with 1",
        image="failing-unit",
        options=BOOT,
        states={"test_no_unit_has_failed": "fail", "test_the_guest_is_up": "pass"},
        quote=r"failed units: broken-on-purpose\.service",
        runs=2,
        short=True,
    ),
    Case(
        "stuck unit",
        "a oneshot service never ends",
        image="stuck-unit",
        options=BOOT,
        states={"test_the_boot_comes_to_an_end": "fail", "test_the_guest_is_up": "pass"},
        quote=r"stuck-on-purpose\.service: start, running",
    ),
    Case(
        "panic in a test",
        "sysrq-c while a test waits for a command",
        tests=inner(
            'ssh.succeed("(sleep 2; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &")',
            'ssh.succeed("sleep 300", timeout=600)',
        ),
        states=_RECOVERED,
        quote=r"Kernel panic - not syncing: sysrq triggered crash",
        within={"test_break": 30},
        short=True,
    ),
    Case(
        "panic at boot",
        "a unit before sysinit.target triggers sysrq-c",
        image="boot-panic",
        options=BOOT,
        states={"test_the_guest_is_up": "fail"},
        quote=r"Kernel panic - not syncing: sysrq triggered crash",
        runs=2,
    ),
    Case(
        "oops",
        "the kernel's words for one, written to /dev/kmsg, while a test waits for a command",
        tests=inner(
            kmsg("<1>BUG: kernel NULL pointer dereference, address: 0"), 'ssh.succeed("sleep 300", timeout=600)'
        ),
        states=_RECOVERED,
        quote=r"BUG: kernel NULL pointer dereference, address: 0",
        within={"test_break": 30},
    ),
    Case(
        "emergency shell",
        "/etc/fstab requires a file system that nobody has",
        image="emergency-shell",
        options=BOOT,
        states={"test_the_guest_is_up": "fail"},
        quote=r"You are in emergency mode",
        runs=2,
    ),
    Case(
        "wrong target",
        "default.target is rescue.target",
        image="wrong-target",
        options=BOOT,
        states={"test_the_guest_is_up": "fail"},
        quote=r"You are in rescue mode",
    ),
    Case(
        "initramfs without a module",
        "virtio_blk.ko is not in the image, and modules.dep names it",
        image="no-virtio-blk",
        options=BOOT,
        states={"test_the_guest_is_up": "fail"},
        quote=r"virtio_blk",
        runs=2,
    ),
    Case(
        "unknown root",
        "erofs.ko holds another module",
        image="unknown-root",
        options=BOOT,
        states={"test_the_guest_is_up": "fail"},
        quote=r"pytest-bootc-init: cannot",
    ),
    Case(
        "hang before sshd",
        "a service that sshd waits for never ends",
        image="hang-before-sshd",
        options=(*BOOT, "--boot-timeout=15"),
        states={"test_the_guest_is_up": "fail"},
        quote=r"the guest was not ready within \d+ s",
    ),
    Case(
        "hang after sshd",
        "everything but systemd is frozen (cgroup.freeze) while a test waits for a command",
        tests=inner(
            f'ssh.succeed(["systemd-run", "--no-block", "--slice=outside.slice", "sh", "-c", "{_FREEZE}"])',
            'ssh.succeed("sleep 600", timeout=900)',
        ),
        states=_RECOVERED,
        quote=r"the guest hangs",
        within={"test_break": 150},
    ),
    Case(
        "no sshd",
        "the image has no SSH server",
        image="no-sshd",
        options=BOOT,
        states={"test_the_guest_is_up": "fail"},
        quote=r"the image has no sshd",
        runs=2,
    ),
    Case(
        "no kernel",
        "the image has modules, and no kernel",
        image="no-kernel",
        options=BOOT,
        states={"test_the_guest_is_up": "fail"},
        quote=r"the image has no kernel",
        runs=2,
    ),
    Case(
        "coredump",
        "a process is killed by SIGSEGV while systemd-coredump catches crashes",
        image="coredump-apparmor",
        tests=inner("ssh.execute(\"sh -c 'ulimit -c unlimited; kill -SEGV $$'\")"),
        states=_RECOVERED,
        quote=r"(?s)SIGSEGV|dumped core|crashed",
    ),
    Case(
        "AVC denial",
        "AppArmor denies a file to a program (audit type 1400)",
        image="coredump-apparmor",
        tests=inner(
            'ssh.succeed("cp /usr/bin/cat /var/denied")',
            f'ssh.write_file("/run/denied", b"{_PROFILE}")',
            'ssh.succeed("mountpoint -q /sys/kernel/security && apparmor_parser --replace --skip-cache /run/denied")',
            'ssh.fail("/var/denied /etc/hostname")',
        ),
        states=_RECOVERED,
        quote=r'apparmor="DENIED"',
    ),
    Case(
        "out of memory",
        "a process eats all memory of a small machine",
        tests=inner(
            'ssh.execute("echo 1 >/proc/sys/vm/overcommit_memory; dd if=/dev/zero of=/dev/null bs=1G", timeout=300)'
        ),
        options=("--vm-memory=512",),
        states=_RECOVERED,
        quote=r"Out of memory: Killed process",
    ),
    Case(
        "ordering cycle",
        "two units wait for each other",
        image="ordering-cycle",
        options=BOOT,
        states={"test_the_console_is_clean": "fail"},
        quote=r"fail: \S*test_the_console_is_clean\S*: the console shows trouble: ordering-cycle: ",
    ),
    Case(
        "skipped unit",
        "an enabled unit is skipped for its condition",
        image="skipped-unit",
        options=BOOT,
        status=0,
        states={"test_the_guest_is_up": "pass", "test_no_unit_has_failed": "pass"},
        quote=r"not judged: \d+ units that were skipped by their conditions",
        reported=r"not judged=skipped-on-purpose\.service",
    ),
    Case(
        "wrong digest",
        "one byte of a layer is not what its digest says",
        image="flipped",
        options=BOOT,
        status=10,
        states={"test_the_guest_is_up": "infra"},
        quote=r"(?i)digest",
        fresh_cache=True,
        short=True,
    ),
]


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=() if case.short else pytest.mark.slow) for case in CASES]
)
def test_a_bad_image(case: Case, book: Book) -> None:
    book.judge(case)


NEGLECTED = [
    Case("/var full", "95 % of /var are taken", states={"test_var_has_room": "fail"}, quote=r"\d % of /var are free"),
    Case(
        "clock far off",
        "a day ahead",
        states={"test_the_clock_is_right": "fail"},
        quote=r"86\d\d\d s ahead of the host's",
    ),
    Case(
        "capability stripped",
        "newuidmap has neither setuid nor cap_setuid",
        states={"newuidmap-cap_setuid": "fail"},
        quote=r"newuidmap has neither the setuid bit \(its mode is 755\) nor cap_setuid",
    ),
    Case(
        "stale ld.so.cache",
        "a library was added without ldconfig",
        states={"test_the_linkers_cache_is_fresh": "fail"},
        quote=r"libq\.so\.1",
    ),
]


@pytest.mark.slow
def test_an_image_that_boots_and_is_neglected(book: Book) -> None:
    """Four faults in one image: each is told by the check that is for it."""
    book.judge_together(NEGLECTED, "neglected", "--suite", "boot,system")
