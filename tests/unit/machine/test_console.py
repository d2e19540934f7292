from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import WaitTimeoutError
from pytest_bootc.machine.console import ConsoleLog, find_trouble


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


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("server login: [   72.236642] BUG: kernel NULL pointer dereference, address: 0", True),
        ("server login: BUG: kernel NULL pointer dereference, typed by somebody", False),
        ("server login: [   72.236642] app[77]: BUG: kernel NULL pointer dereference, quoted", False),
    ],
)
def test_the_kernels_message_behind_a_prompt(line: str, *, counts: bool) -> None:
    assert [finding.text for finding in find_trouble(f"\n{line}\n")] == ([line] if counts else [])
