from __future__ import annotations

import base64

import pytest

from pytest_bootc.evidence.rendering import file, files, journal_file, mounts_file, parse_core, processes_file
from pytest_bootc.evidence.request import MOST_CORE, OWN_MARK, Answer

NEWEST_FIRST = (
    "[   12.000000] vm systemd[1]: three\n[    2.500000] vm kernel: two\n  more of two\n[    1.500000] vm kernel: one\n"
)


def test_the_journal_is_put_in_order_and_cut_where_the_test_began() -> None:
    oldest = "[    1.500000] vm kernel: one\n"
    whole = f"{oldest}[    2.500000] vm kernel: two\n  more of two\n[   12.000000] vm systemd[1]: three\n"
    assert journal_file(f"13.00\n{NEWEST_FIRST}", 20) == whole
    assert journal_file(f"13.00\n{NEWEST_FIRST}", 10.5) == whole.partition("\n")[2]
    assert journal_file(f"13.00\n{NEWEST_FIRST}", 10.4) == "[   12.000000] vm systemd[1]: three\n"


def test_where_nothing_happened_since_what_was_before_is_kept_and_said() -> None:
    kept = journal_file(f"13.00\n{NEWEST_FIRST}", 0.5)
    assert kept.startswith("[nothing since the test began; what was last before it:]\n[    1.500000] vm kernel: one\n")
    assert kept.endswith("three\n")


def test_an_uptime_that_cannot_be_read_costs_nothing_but_length() -> None:
    assert journal_file(f"cat: no\n{NEWEST_FIRST}", 0.5).count("\n") == 4


def test_an_entry_that_was_cut_ends_its_line() -> None:
    cut = "[    1.400000] vm kernel: half of"
    assert journal_file(f"13.00\n{NEWEST_FIRST}{cut}", 20).splitlines()[:2] == [cut, "[    1.500000] vm kernel: one"]


def process(pid: int, parent: int, name: str, arguments: str, wchan: str = "0") -> str:
    stat = f"{pid} ({name}) S {parent} 1 1 0 -1 4194560 1 1 1 1 150 50 0 0 20 0 1 0 1234 100 10 0\n"
    return (
        f"==> /proc/{pid}/stat <==\n{stat}\n/proc/{pid}/status:Uid:\t{pid * 10}\t0\t0\t0\n"
        f"/proc/{pid}/status:VmRSS:\t    5678 kB\n==> /proc/{pid}/wchan <==\n{wchan}\n"
        f"==> /proc/{pid}/cmdline <==\n{arguments}"
    )


def test_processes_are_a_table_without_secrets_and_without_those_that_asked() -> None:
    text = "==> /proc/loadavg <==\n0.1 0.2 0.3 1/2 3\n\n==> /proc/meminfo <==\n" + "".join(
        (
            process(1, 0, "systemd", "/sbin/init\0--token\0hunter2\0", "ep_poll"),
            process(2, 0, "kthreadd", ""),
            process(30, 1, "a) R 1 (b", "tool\0two words\nand a line\0"),
            process(40, 1, "sh", f"sh\0-c\0# {OWN_MARK}\0"),
            process(41, 40, "head", "head\0/proc/1/stat\0"),
        )
    )
    load, _, table = processes_file(text).partition("\n\n")
    assert load == "0.1 0.2 0.3 1/2 3"
    assert [" ".join(line.split()) for line in table.splitlines()] == [
        "PID PPID UID S STARTED CPU RSS/KiB WAITS IN COMMAND",
        "1 0 10 S 12.34 2.00 5678 ep_poll /sbin/init --token [hidden]",
        "2 0 20 S 12.34 2.00 5678 - [kthreadd]",
        "30 1 300 S 12.34 2.00 5678 - tool two words\\nand a line",
    ]


@pytest.mark.parametrize("rest", ["", "==> /proc/1/stat <==\n1 (cut) S 0 1", "==> /proc/7/cmdline <==\nx\0"])
def test_processes_that_were_cut_off_break_nothing(rest: str) -> None:
    assert processes_file(f"0.1\n\n{rest}").startswith("0.1\n\nPID  PPID")


def test_mounts_are_a_table() -> None:
    line = r"25 24 254:16 / /var/a\040b rw,relatime shared:2 - ext4 /dev/vdb rw,noinit_itable"
    assert mounts_file(f"{line}\n\nFilesystem Size\n") == (
        "TARGET    SOURCE    TYPE  OPTIONS\n/var/a b  /dev/vdb  ext4  rw,relatime,noinit_itable\n\nFilesystem Size\n"
    )
    assert mounts_file("cat: no such file\n") == "cat: no such file\n"


CONTENT = bytes(range(256)) * 10
ENCODED = base64.encodebytes(CONTENT).decode()


def test_a_core_comes_as_it_is() -> None:
    core = parse_core(f"2560 core.sleep.0.abc.1.2.zst\n{ENCODED}")
    assert core is not None
    assert (core.name, core.content) == ("core.sleep.0.abc.1.2.zst", CONTENT)
    assert files({"core": Answer(f"2560 core.a\n{ENCODED}"), "coredumps": Answer("one\n")}, 1) == {
        "core.a": CONTENT, "coredumps.txt": "one\n\n[the newest core is beside this file: core.a]\n",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "remark"),
    [
        (f"2560 core.a\n{ENCODED[:1000]}", "the time for it was up"),
        (f"2560 core.a\n{ENCODED[:1001]}", "the time for it was up"),
        (f"{MOST_CORE + 1} core.a\n", f"it has {MOST_CORE + 1} bytes"),
    ],
)
def test_half_a_core_is_none(text: str, remark: str) -> None:
    core = parse_core(text)
    assert core is not None
    assert core.content is None
    assert remark in str(core)


def test_a_core_that_was_not_asked_for_in_time_is_told() -> None:
    answers = {"core": Answer("", "it took too long, and was ended"), "coredumps": Answer("one\n")}
    assert files(answers, 1) == {
        "coredumps.txt": "one\n\n[whether there is a core was not told: it took too long, and was ended]\n"
    }


@pytest.mark.parametrize("text", ["", "sh: base64: not found\n"])
def test_no_core(text: str) -> None:
    assert parse_core(text) is None


def test_the_name_of_a_core_is_a_file_name() -> None:
    core = parse_core("0 ../../core of\x01it\n")
    assert core is not None
    assert core.name == "_.._core_of_it"


def test_what_went_wrong_with_a_source_stands_first_and_what_cannot_be_read_is_kept() -> None:
    answers = {"units": Answer("password=x\n", "it took too long, and was ended"), "mounts": Answer("a - b")}
    assert file("units", answers) == "[units: it took too long, and was ended]\npassword=[hidden]\n"
    assert file("none", answers) == ""

    def fail(text: str) -> str:
        raise ValueError(text)

    assert file("mounts", answers, fail) == "[it cannot be read: ValueError('a - b')]\na - b"
