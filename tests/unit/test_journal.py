from __future__ import annotations

import json
import subprocess

import pytest

from pytest_bootc.errors import GuestError
from pytest_bootc.journal import (
    MOST_BYTES,
    Coredump,
    JournalEntry,
    JournalQuery,
    coredump_query,
    parse_coredumps,
    parse_journal,
    skipped_unit,
)

CURSOR = "s=d2f1c5;i=1a2b;b=5c1b;m=1c9f8;t=63f1;x=9b"


def line(**fields: object) -> bytes:
    entry = {
        "__CURSOR": CURSOR,
        "__REALTIME_TIMESTAMP": "1764000000250000",
        "__MONOTONIC_TIMESTAMP": "31250000",
        "_BOOT_ID": "5c1b0e0a4a7b4c0f9a0d9c5b2f6f7e11",
        **fields,
    }
    return json.dumps(entry).encode() + b"\n"


def test_an_entry():
    printed = line(
        MESSAGE="Started ssh.service - OpenBSD Secure Shell server.",
        PRIORITY="6",
        SYSLOG_IDENTIFIER="systemd",
        _PID="1",
        _COMM="systemd",
        UNIT="ssh.service",
        _SYSTEMD_UNIT="init.scope",
        MESSAGE_ID="39f53479d3a045ac8e11786248231fbf",
    )
    (entry,) = parse_journal(printed)

    assert entry.message == "Started ssh.service - OpenBSD Secure Shell server."
    assert (entry.time, entry.priority, entry.pid, entry.cursor) == (1764000000.25, 6, 1, CURSOR)
    assert (entry.unit, entry.identifier) == ("ssh.service", "systemd")
    assert entry.fields["MESSAGE_ID"] == "39f53479d3a045ac8e11786248231fbf"
    assert str(entry) == "systemd[1]: Started ssh.service - OpenBSD Secure Shell server."


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([27, 91, 49, 109, 104, 105, 255], "\x1b[1mhi\ufffd"),  # not UTF-8, or with control characters
        (["one", "two"], "one\ntwo"),  # the field was given twice
        (["one", [255, 65]], "one\n\ufffdA"),
        (None, ""),  # too large
        ([], ""),
    ],
)
def test_a_message_that_is_not_plain_text(value, text):
    (entry,) = parse_journal(line(MESSAGE=value))

    assert entry.message == text


def test_the_kernels_entries_have_no_process():
    (entry,) = parse_journal(line(MESSAGE="audit: type=1400", SYSLOG_IDENTIFIER="kernel", PRIORITY="5"))

    assert (entry.pid, entry.unit) == (None, None)
    assert str(entry) == "kernel: audit: type=1400"


def test_an_entry_without_an_identifier_has_its_programs_name():
    assert parse_journal(line(MESSAGE="x", _COMM="bash"))[0].identifier == "bash"


def test_the_first_entry_of_a_cut_answer_is_left_out():
    whole = line(MESSAGE="last")
    cut = b'"half of an entry"}\n'
    filler = b" " * (MOST_BYTES - len(cut) - len(whole) - 1) + b"\n"

    assert [entry.message for entry in parse_journal(cut + filler + whole)] == ["last"]


def test_no_entries():
    assert parse_journal(b"") == []


@pytest.mark.parametrize("printed", [b"No journal files were found.\n", b"[]\n", b'{"MESSAGE": "x"}\n', b"\xff\n"])
def test_something_else_is_an_error(printed):
    with pytest.raises(GuestError, match="journalctl printed something that cannot be read"):
        parse_journal(printed)


def test_a_coredump():
    printed = line(
        MESSAGE="Process 712 (gnome-shell) of user 1000 dumped core.\n\nStack trace of thread 712: ...",
        MESSAGE_ID="fc2e22bc6ee647b6b90729ab34a250b1",
        COREDUMP_PID="712",
        COREDUMP_EXE="/usr/bin/gnome-shell",
        COREDUMP_COMM="gnome-shell",
        COREDUMP_SIGNAL_NAME="SIGSEGV",
        COREDUMP_UNIT="user@1000.service",
    )
    (core,) = parse_coredumps(printed)

    assert core == Coredump(
        time=1764000000.25,
        executable="/usr/bin/gnome-shell",
        signal="SIGSEGV",
        pid=712,
        unit="user@1000.service",
        message="Process 712 (gnome-shell) of user 1000 dumped core.\n\nStack trace of thread 712: ...",
    )
    assert str(core) == "/usr/bin/gnome-shell was ended by SIGSEGV"


def test_other_entries_are_no_coredumps():
    assert parse_coredumps(line(MESSAGE="x")) == []


def options_of(query: JournalQuery) -> list[str]:
    """What journalctl would be called with."""
    shell, option, script, *arguments = query.command()
    return subprocess.check_output(
        [shell, option, f'journalctl() {{ printf "%s\\n" "$@"; }}\n{script}', *arguments], text=True
    ).splitlines()


def test_a_query_without_a_cursor_is_limited_by_journalctl_itself():
    options = options_of(JournalQuery(unit="ssh.service", priority="err", limit=7))

    assert {"--lines=7", "--unit=ssh.service", "--priority=err", "--boot"} <= set(options)


def test_a_query_after_a_cursor_is_not():
    options = options_of(JournalQuery(since_cursor=CURSOR, boot=False))

    assert f"--after-cursor={CURSOR}" in options
    assert not any(option.startswith(("--lines", "--boot")) for option in options)


def test_only_the_newest_entries_come_back():
    shell, option, script, *arguments = JournalQuery(since_cursor=CURSOR, limit=2).command()
    printed = subprocess.check_output([shell, option, f"journalctl() {{ seq 5; }}\n{script}", *arguments], text=True)

    assert printed == "4\n5\n"


def test_a_journalctl_that_fails_is_heard_of_through_the_pipe():
    shell, option, script, *arguments = JournalQuery().command()
    done = subprocess.run(
        [shell, option, f"journalctl() {{ return 3; }}\n{script}", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )

    assert (done.stdout, done.stderr) == ("", "journalctl gave exit status 3\n")


def test_the_query_for_coredumps():
    assert options_of(coredump_query(None))[-1] == "MESSAGE_ID=fc2e22bc6ee647b6b90729ab34a250b1"


@pytest.mark.parametrize(
    ("message", "fields", "name"),
    [
        ("a.service - Some thing skipped, unmet condition check ConditionPathExists=/nowhere", {}, "a.service"),
        ("b.service - It - and more skipped, no trigger condition checks were met.", {}, "b.service"),
        ("Some thing was skipped because of an unmet condition check (ConditionFirstBoot=yes).", {}, "Some thing"),
        ("Some thing was skipped because no trigger condition checks were met.", {"UNIT": "c.service"}, "c.service"),
        ("Started a.service - Some thing.", {"UNIT": "a.service"}, None),
        ("Job skipped by a user", {}, None),
    ],
)
def test_units_that_a_condition_has_skipped(message: str, fields: dict[str, str], name: str | None) -> None:
    assert skipped_unit(JournalEntry(message, 0.0, "c", fields=fields)) == name
