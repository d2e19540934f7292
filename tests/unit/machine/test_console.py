from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import WaitTimeoutError
from pytest_bootc.machine.console import ConsoleLog, ConsoleReader, find_trouble
from pytest_bootc.model import Finding, Trouble


@pytest.fixture
def console(tmp_path: Path) -> ConsoleLog:
    return ConsoleLog(tmp_path / "console.log")


def test_before_anything_was_printed(console: ConsoleLog) -> None:
    assert (console.text(), console.tail(), console.size(), console.fatal_line()) == ("", "", 0, None)
    assert not console.has_breakpoint_oops()


@pytest.mark.parametrize(
    ("printed", "text"),
    [
        (b"plain\r\n\ttab\n", "plain\n\ttab\n"),
        (b"[\x1b[0;32m  OK  \x1b[0m] Reached\n", "[  OK  ] Reached\n"),
        (b"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS\n", "SeaBIOS\n"),
        (b"\x1b(B\x1b[m\x1b7\x1b8login\x1b[6n\n", "login\n"),
        (b"\x1b[!p\x1b]104\x1b\\\x1b[?25hnext\n", "next\n"),
        (b"\x1b]0;a title\x07after\n", "after\n"),
        (b"\x1b]3008;start=0123;type=service\x1b\\unit\x1b]3008;end=0123\x1b\\\n", "unit\n"),
        (b"\x1bP+q544e\x1b\\x\x00\x07\x08\x7f\n", "x\n"),
        (b"\x1b]unfinished\nKernel\x07\n", "unfinished\nKernel\n"),
        ("ünï\xff\n".encode("latin-1"), "�n��\n"),
        ("日本\n".encode(), "日本\n"),
        (b"\x1b[", ""),
    ],
)
def test_what_a_terminal_would_obey_is_left_out(console: ConsoleLog, printed: bytes, text: str) -> None:
    console.path.write_bytes(printed)
    assert console.text() == text
    assert console.size() == len(printed)


def test_the_tail_has_no_empty_lines(console: ConsoleLog) -> None:
    console.path.write_bytes(b"one\n\ntwo\n   \nthree\n\n")
    assert console.tail(2) == "two\nthree"
    console.path.write_bytes(b"\n".join(b"%d" % n for n in range(30)))
    assert console.tail().splitlines() == [str(n) for n in range(15, 30)]


@pytest.mark.parametrize(
    "line",
    [
        "[    2.123456] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
        "[   12.000001][    T1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
        "[ 1234.000001][   C0] Kernel panic - not syncing: sysrq triggered crash",
        "Kernel panic - not syncing: early",
        "pytest-bootc-init: cannot mount the root file system (erofs on /dev/vda)",
        "[    5.000000] systemd[1]: Freezing execution.",
        "systemd[1]: Freezing execution.",
        "Freezing execution",
        'You are in emergency mode. After logging in, type "journalctl -xb" to view',
        "You are in rescue mode. After logging in, type",
        "\x1b[0m\x1b]3008;start=1\x1b\\[    3.000000] Kernel panic - not syncing: marked",
    ],
)
def test_lines_after_which_nothing_good_comes(console: ConsoleLog, line: str) -> None:
    console.path.write_bytes(b"before\r\n" + line.encode() + b"\r\nafter\r\n")
    fatal = console.fatal_line()
    assert fatal is not None
    assert line.endswith(fatal)


@pytest.mark.parametrize(
    "line",
    [
        "audit: a log line that says Kernel panic - not syncing",
        "[    2.000000] test[77]: Kernel panics are bad",
        "[    2.000000] Kernel command line: panic=1 pytest-bootc-init: cannot",
        "See: You are in emergency mode",
        "[  OK  ] Finished Freezing execution.",
        "[    4.0] Unfreezing execution",
    ],
)
def test_lines_that_only_speak_of_it(console: ConsoleLog, line: str) -> None:
    console.path.write_text(f"{line}\n")
    assert console.fatal_line() is None


def test_an_earlier_boot_does_not_count(console: ConsoleLog) -> None:
    panic = b"[    1.000000] Kernel panic - not syncing: first boot\n"
    console.path.write_bytes(panic)
    start = console.size()
    assert console.fatal_line(start) is None
    with console.path.open("ab") as file:
        file.write(b"[    1.000000] Kernel panic - not syncing: second boot\n")
    assert console.fatal_line() == panic.decode().strip()
    assert console.fatal_line(start) == "[    1.000000] Kernel panic - not syncing: second boot"


@pytest.mark.parametrize(
    ("line", "has"),
    [
        ("[    2.503113] int3: 0000 [#1] PREEMPT SMP NOPTI", True),
        ("[    2.503113] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI", True),
        ("[    2.503113][    T9] Oops: int3: 0000 [#1] SMP", True),
        ("[    2.503113] Oops: 0000 [#1] SMP", False),
        ("[    2.503113] traps: int3: 0000", False),
        ("int3: 0000", False),
        ("log: [    2.503113] int3: 0000", False),
    ],
)
def test_a_breakpoint_of_the_kernel_itself(console: ConsoleLog, line: str, has: bool) -> None:  # noqa: FBT001
    console.path.write_text(f"before\n{line}\nafter\n")
    assert console.has_breakpoint_oops() is has
    assert not console.has_breakpoint_oops(console.size())


def test_waiting_for_a_line_that_comes_in_pieces(console: ConsoleLog) -> None:
    def write() -> None:
        with console.path.open("ab", buffering=0) as file:
            for piece in (b"booting\r\n", b"\x1b[0;1mlogin", b": \x1b[0m", b"now\r\n"):
                time.sleep(0.02)
                file.write(piece)

    thread = threading.Thread(target=write)
    thread.start()
    assert console.wait_for(r"^login: \w+$", Deadline.after(20)) == "login: now"
    thread.join()
    assert console.wait_for("boot", Deadline.after(0)) == "booting"


def test_a_line_that_does_not_come(console: ConsoleLog) -> None:
    console.path.write_bytes(b"one\n\ntwo\n")
    with pytest.raises(WaitTimeoutError) as caught:
        console.wait_for("log.n", Deadline.after(0.1))
    assert caught.value.brief == "waited 0.1 s for 'log.n' on the console"
    assert caught.value.details == "one\ntwo"


TELLING = [
    # Kernels: panic.c, watchdog.c, workqueue.c, arch/*/kernel/traps.c, mm/oom_kill.c, init/*.c.
    ("[    1.512345] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)", Trouble.PANIC),
    ("[ 1234.000001][   C0] Kernel panic - not syncing: sysrq triggered crash", Trouble.PANIC),
    ("Kernel panic - not syncing: early", Trouble.PANIC),
    ("[   12.345678][    T1] BUG: unable to handle page fault for address: ffffffffdeadbeef", Trouble.OOPS),
    ("[   12.345678] BUG: kernel NULL pointer dereference, address: 0000000000000000", Trouble.OOPS),
    ("[   12.345678] BUG: Bad page state in process bash  pfn:1a2b3", Trouble.OOPS),
    ("[    3.000001] Oops: 0000 [#1] PREEMPT SMP", Trouble.OOPS),
    (
        "[    3.000001] Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1]",
        Trouble.OOPS,
    ),
    ("[    3.000001] general protection fault, probably for non-canonical address 0xdead: 0000 [#1]", Trouble.OOPS),
    ("[    3.000001] invalid opcode: 0000 [#1] PREEMPT SMP NOPTI", Trouble.OOPS),
    ("[    3.000001] int3: 0000 [#1] PREEMPT SMP NOPTI", Trouble.OOPS),
    ("[    3.000001] kernel BUG at mm/slub.c:305!", Trouble.OOPS),
    ("Internal error: Oops: 96000004 [#1] SMP", Trouble.OOPS),
    ("[    3.000001] Unable to handle kernel paging request at virtual address dead000000000108", Trouble.OOPS),
    ("[  112.345678] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [kworker/1:1:35]", Trouble.LOCKUP),
    ("[  112.345678] NMI watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [kworker/1:1:35]", Trouble.LOCKUP),
    ("[  112.345678] watchdog: CPU3: Watchdog detected hard LOCKUP on cpu 3", Trouble.LOCKUP),
    ("[  112.345678] NMI watchdog: Watchdog detected hard LOCKUP on cpu 0", Trouble.LOCKUP),
    ("[  112.345678] BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 34s!", Trouble.LOCKUP),
    ("[   40.123456] Out of memory: Killed process 812 (gnome-shell) total-vm:3824512kB", Trouble.OOM),
    ("[   40.123456] Out of memory (oom_kill_allocating_task): Killed process 812 (gnome-shell)", Trouble.OOM),
    ("[   40.123456] Memory cgroup out of memory: Killed process 4711 (stress) total-vm:1024kB", Trouble.OOM),
    ("[    0.812345] Initramfs unpacking failed: invalid magic at start of compressed archive", Trouble.INITRAMFS),
    ('[    1.512345] VFS: Cannot open root device "vda9" or unknown-block(0,0): error -6', Trouble.INITRAMFS),
    ("[    1.512345] VFS: Unable to mount root fs via NFS.", Trouble.INITRAMFS),
    # dracut, in a systemd initramfs and without.
    ("[   90.212345] dracut-initqueue[354]: Warning: dracut-initqueue: timeout, still waiting for", Trouble.INITRAMFS),
    ("[    2.212345] dracut-pre-udev[201]: FATAL: Don't know how to handle 'root=nonsense'", Trouble.INITRAMFS),
    ("[    2.212345] dracut: FATAL: No or empty root= argument", Trouble.INITRAMFS),
    ("[  184.212345] dracut-initqueue[354]: Warning: Could not boot.", Trouble.INITRAMFS),
    ('dracut Warning: Boot has failed. To debug this issue add "rd.shell rd.debug"', Trouble.INITRAMFS),
    ("Entering emergency mode. Exit the shell to continue.", Trouble.EMERGENCY_SHELL),
    # Debian's initramfs-tools, Arch's mkinitcpio, and our own.
    ("ALERT!  /dev/vda2 does not exist.  Dropping to a shell!", Trouble.INITRAMFS),
    ("ALERT!  UUID=0a3407de-014b-458b-b5c1-848e92a327a3 does not exist.  Dropping to a shell!", Trouble.INITRAMFS),
    ("(initramfs) ", Trouble.EMERGENCY_SHELL),
    ("ERROR: Failed to mount '/dev/vda2' on real root", Trouble.INITRAMFS),
    ("You are now being dropped into an emergency shell.", Trouble.EMERGENCY_SHELL),
    (":: running emergency hook [console]", Trouble.EMERGENCY_SHELL),
    ("[    2.212345] pytest-bootc-init: cannot mount the root file system (erofs on /dev/vda)", Trouble.INITRAMFS),
    # systemd, and util-linux's sulogin.
    ("[\x1b[0;1;31mFAILED\x1b[0m] Failed to mount \x1b[0;1;39msysroot.mount\x1b[0m - /sysroot.", Trouble.INITRAMFS),
    ("[FAILED] Failed to mount /sysroot.", Trouble.INITRAMFS),
    ('You are in emergency mode. After logging in, type "journalctl -xb" to view', Trouble.EMERGENCY_SHELL),
    ('You are in rescue mode. After logging in, type "journalctl -xb" to view', Trouble.EMERGENCY_SHELL),
    ("Give root password for maintenance", Trouble.EMERGENCY_SHELL),
    ("Press Enter for maintenance", Trouble.EMERGENCY_SHELL),
    ("[   12.312345] systemd[1]: Freezing execution.", Trouble.FROZEN_INIT),
    ("[\x1b[0;1;31m!!!!!!\x1b[0m] Failed to mount API filesystems.", Trouble.FROZEN_INIT),
    ("[ \x1b[0;1;31mSKIP\x1b[0m ] Ordering cycle found, skipping \x1b[0;1;39mb.service\x1b[0m", Trouble.ORDERING_CYCLE),
    ("[    4.512345] systemd[1]: a.service: Found ordering cycle on b.service/start", Trouble.ORDERING_CYCLE),
    ("[    4.512345] systemd[1]: a.service: Found ordering cycle: b.service/start after", Trouble.ORDERING_CYCLE),
    (
        "[    4.512345] systemd[1]: a.service: Job b.service/start deleted to break ordering cycle starting with",
        Trouble.ORDERING_CYCLE,
    ),
]


@pytest.mark.parametrize(("line", "kind"), TELLING)
def test_lines_that_tell_of_trouble(line: str, kind: Trouble) -> None:
    quoted = re.sub(r"\x1b\[[0-9;]*m", "", line).strip()
    for end in ("\n", "\r\n", "\r\r\n"):
        printed = end.join(("", "Linux version 6.12", line, "", "server login: "))
        assert find_trouble(printed) == [Finding(kind, quoted)]


def test_every_kind_that_a_console_can_tell_of_has_lines() -> None:
    told = {Trouble.FAILED_UNIT, Trouble.STUCK_JOB, Trouble.COREDUMP, Trouble.AVC}
    assert {kind for _, kind in TELLING} == set(Trouble) - told


@pytest.mark.parametrize("line", [line for line, kind in TELLING if line.startswith("[ ") and "\x1b" not in line])
def test_what_a_process_has_logged_does_not_count(line: str) -> None:
    # As systemd-journald forwards it to the console, or the kernel what was written to /dev/kmsg.
    stamp, _, message = line.partition("] ")
    for logged in (message, line):
        for name in ("app[77]", "audit", "systemd[1]", "test-runner[4711]", "kernel-watch"):
            assert find_trouble(f"{stamp}] {name}: {logged}\n{name}: {logged}\n") == []


@pytest.mark.parametrize(
    "line",
    [
        "[   12.312345] app[77]: Kernel panic - not syncing: quoted",
        "[   12.312345] app[77]: # [    3.000001] Oops: 0000 [#1] PREEMPT SMP",
        "[   12.312345] app[77]: a line\x85Kernel panic - not syncing: quoted",
        "[   12.312345] app[77]: a line\u2028(initramfs) ",
        "[   12.312345] app[77]: a bar\rOops: 0000 [#1]",
        "[   12.312345] systemd-oomd[300]: Out of memory: Killed process",
        "[   12.312345] systemd[1]: a.service: Failed with result 'oom-kill'.",
        "[   12.312345] traps: app[77] general protection fault ip:7f01 sp:7ffc error:0 in libc.so.6[7f00+1000]",
        "[   12.312345] traps: app[77] trap invalid opcode ip:55d4 sp:7ffc error:0 in app[55d4+1000]",
        "[   12.312345] app[77]: segfault at 0 ip 0000 sp 0000 error 4 in app[400000+1000]",
        "[   12.312345] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---",
        "[   12.312345] Kernel command line: panic=1 oops=panic pytest-bootc-init: cannot",
        "[   12.312345] NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.",
        "[   12.312345] Rounding down aligned max_sectors: Kernel panic - not syncing",
        "[   12.312345] pytest-bootc-init: mounting the root file system",
        "[   12.312345] dracut: Mounted root filesystem /dev/vda2",
        "[   12.312345] dracut-initqueue[354]: Warning: /dev/disk/by-label/x does not exist yet",
        "[   12.312345] Oopses are told by the kernel",
        "[  OK  ] Reached target emergency.target - You are in emergency mode",
        "[  OK  ] Started systemd-journald.service - Kernel panic - not syncing",
        "[FAILED] Failed to mount mnt.mount - /mnt.",
        "[ SKIP ] Ordering cycle of nothing",
        "See: You are in emergency mode",
        "root@server:~# echo Kernel panic - not syncing",
        "server login: Kernel panic - not syncing",
        "server login: [   72.236642] app[77]: BUG: kernel NULL pointer dereference, quoted",
        "a (initramfs) prompt",
        "server login: ",
        "",
    ],
)
def test_lines_that_merely_quote_such_words(line: str) -> None:
    assert find_trouble(f"Linux version 6.12\n{line}\nserver login: \n") == []


@pytest.mark.parametrize(
    "before",
    [
        "server login: ",
        "root@server:~# ",
        "[root@server ~]# ",
        "sh-5.2$ ",
        "[***   ] A start job is running for dev-vda2.device (5s / 1min 30s)",
        "[ ***  ] (1 of 2) A start job is running for a.service (1min 2s / no limit)",
        "\r\x1b[K[\x1b[0;32m*     \x1b[0m] A start job is running for b.service (5s / 1min 30s)",
    ],
)
@pytest.mark.parametrize(
    ("message", "fatal"),
    [
        ("[   72.236642] Kernel panic - not syncing: sysrq triggered crash", True),
        ("[   72.236642][  T812] BUG: kernel NULL pointer dereference, address: 0", False),
    ],
)
def test_the_kernels_message_behind_what_nobody_has_ended(
    console: ConsoleLog, before: str, message: str, *, fatal: bool
) -> None:
    console.path.write_text(f"\n{before}{message}\r\n")
    assert [finding.text for finding in find_trouble(console.path.read_text())] == [message]
    assert console.fatal_line() == (message if fatal else None)


def test_a_line_is_quoted_as_it_is() -> None:
    line = "[    1.512345] Kernel panic - not syncing: a login: [    2.000000] within"
    assert [finding.text for finding in find_trouble(line)] == [line]


def test_findings_are_told_in_their_order() -> None:
    printed = "".join(f"{line}\n" for line, _ in TELLING)
    assert [finding.kind for finding in find_trouble(printed)] == [kind for _, kind in TELLING]


@pytest.fixture
def reader(console: ConsoleLog) -> ConsoleReader:
    console.path.touch()
    return ConsoleReader(console.path)


PANIC = b"[    1.512345] Kernel panic - not syncing: Attempted to kill init!"
OOM = b"[   40.123456] Out of memory: Killed process 812 (gnome-shell)"


def written(console: ConsoleLog, reader: ConsoleReader, *pieces: bytes) -> list[list[Trouble]]:
    """What the reader finds after each piece."""
    found = []
    for piece in pieces:
        with console.path.open("ab") as file:
            file.write(piece)
        found.append([finding.kind for finding in reader.new_findings()])
    return found


def test_each_line_is_told_once(console: ConsoleLog, reader: ConsoleReader) -> None:
    assert reader.new_findings() == []
    assert written(console, reader, b"Linux\n", PANIC + b"\n", b"", b"more\n", PANIC + b"\n" + OOM + b"\n", b"") == [
        [],
        [Trouble.PANIC],
        [],
        [],
        [Trouble.PANIC, Trouble.OOM],
        [],
    ]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 7, 40])
def test_a_line_that_comes_in_pieces_is_told_when_it_is_whole(
    console: ConsoleLog, reader: ConsoleReader, size: int, end: bytes
) -> None:
    line = b"before\xc3\xbc\n\x1b[0;1;31m" + PANIC + b"\x1b[0m \xf0\x9f\x92\xa5" + end
    printed = line + b"after"
    found = written(console, reader, *[printed[start : start + size] for start in range(0, len(printed), size)])
    assert [kinds for kinds in found if kinds] == [[Trouble.PANIC]]
    assert found[(len(line) - 1) // size] == [Trouble.PANIC]
    assert written(console, reader, b"\n", OOM) == [[], []]
    assert [finding.text for finding in find_trouble(console.text() + "\n")] == [f"{PANIC.decode()} 💥", OOM.decode()]


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        (b"(initramfs) ", b"ls\r\nbin dev\r\n"),
        (b"\x1b[0m(initramfs) \x1b[6n", b"\x1b[2;13R\r\n"),
        (b"Press Enter for maintenance", b"\r\n(or press Control-D to continue): "),
        (b"Give root password for maintenance", b"\r\n(or press Control-D to continue): \r\n"),
    ],
)
def test_a_prompt_has_no_end(console: ConsoleLog, reader: ConsoleReader, prompt: bytes, answer: bytes) -> None:
    shell = [Trouble.EMERGENCY_SHELL]
    assert written(console, reader, b"Loading\r\n" + prompt[:8], prompt[8:], b"", answer) == [[], shell, [], []]
    assert written(console, reader, b"\r\n" + prompt) == [shell]


@pytest.mark.parametrize("start", [b"Press Enter for", b"Give root password for", b"(initram"])
def test_half_a_prompt_is_none(console: ConsoleLog, reader: ConsoleReader, start: bytes) -> None:
    assert written(console, reader, start, b" a reason\n") == [[], []]


def test_bytes_that_are_no_text(console: ConsoleLog, reader: ConsoleReader) -> None:
    rubbish = bytes(range(256)) * 20
    assert written(console, reader, rubbish, b"\n" + PANIC + b" \xff\xfe\n", rubbish) == [[], [Trouble.PANIC], []]


def test_a_line_without_an_end_is_not_kept(console: ConsoleLog, reader: ConsoleReader) -> None:
    began = time.monotonic()
    for _ in range(20):
        assert written(console, reader, b"\x00" * 3_000_000) == [[]]
        assert [reader.new_findings() for _ in range(50)] == [[]] * 50
    # Reading it from its beginning each time takes minutes.
    assert time.monotonic() - began < 20
    assert written(console, reader, b"\n" + PANIC + b"\n") == [[Trouble.PANIC]]


def test_a_long_console_is_read_in_reasonable_time(console: ConsoleLog, reader: ConsoleReader) -> None:
    line = b"[   12.345678] systemd[1]: Started session-c2.scope - Session c2 of User core.\r\n"
    began = time.monotonic()
    found = written(console, reader, *[line * 21_000 + OOM + b"\n"] * 32)
    assert console.size() > 50 << 20
    assert found == [[Trouble.OOM]] * 32
    assert time.monotonic() - began < 60


def test_another_file_is_read_from_its_beginning(console: ConsoleLog, reader: ConsoleReader) -> None:
    assert written(console, reader, b"a long first boot\n" + PANIC + b"\n") == [[Trouble.PANIC]]
    console.path.rename(console.path.with_name("console-before.log"))
    assert written(console, reader, OOM + b"\n" + b"and a longer second one\n" * 9, b"") == [[Trouble.OOM], []]
    assert written(console, reader, PANIC + b"\n") == [[Trouble.PANIC]]
    console.path.write_bytes(OOM + b"\n")
    assert written(console, reader, b"") == [[Trouble.OOM]]


def test_a_console_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ConsoleReader(tmp_path / "nothing").new_findings()
