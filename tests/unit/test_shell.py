from __future__ import annotations

import subprocess
from dataclasses import dataclass, field

import pytest

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import ConfigError, SSHCommandError, WaitTimeoutError
from pytest_bootc.shell import CommandResult, ShellVerbs, shell_line, short, time_limit, wait_for


def ran(command: str = "true", status: int = 0, stdout: bytes = b"", stderr: bytes = b"") -> CommandResult:
    return CommandResult(command, status, stdout, stderr, 0.1)


@dataclass
class Recording(ShellVerbs):
    """Verbs over answers that are known beforehand; the last one is repeated."""

    answers: list[CommandResult]
    limits: list[Deadline] = field(default_factory=list)

    def execute(self, command, *, timeout=None, deadline=None, stdin=b"", env=None) -> CommandResult:
        self.limits.append(time_limit(timeout, deadline))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.mark.parametrize(
    ("command", "env", "line"),
    [
        ("a | b", None, "a | b"),
        (["a", "b c", "$d"], None, "a 'b c' '$d'"),
        ("a | b", {"X": "1 2"}, "export X='1 2'; a | b"),
        (["a"], {"X": "1", "Y": ""}, "env X=1 Y='' a"),
    ],
)
def test_what_the_remote_shell_is_given(command, env, line):
    assert shell_line(command, env) == line


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("command", ['printf "%s" "$X"', ["sh", "-c", 'printf "%s" "$X"']])
def test_a_shell_agrees_about_quoting(shell, command):
    value = "a'b\"c $d \\ \n*"

    assert subprocess.check_output([shell, "-c", shell_line(command, {"X": value})], text=True) == value


@pytest.mark.parametrize("name", ["", "1X", "A-B", "A B", "A;reboot"])
def test_a_variable_must_have_a_name(name):
    with pytest.raises(ConfigError, match="is no name for an environment variable"):
        shell_line("true", {name: "value"})


def test_output_is_text_even_where_it_is_not():
    assert ran(stdout=b"\xff\xfea").stdout == "\ufffd\ufffda"


def test_a_transcript_keeps_the_end_of_long_output():
    shown = ran(stdout=b"x" * 5000 + b"end").transcript()

    assert shown.startswith("$ true\n[...]\nxxx")
    assert shown.endswith("xend")
    assert len(shown) < 4100


@pytest.mark.parametrize(
    ("line", "shown"), [("true", "true"), ("a\nb", "a..."), ("x" * 200, "x" * 120 + "..."), ("a\n", "a")]
)
def test_a_command_in_a_sentence_is_short(line, shown):
    assert short(line) == shown


def test_limits_the_earlier_one_counts():
    late = Deadline.after(100)

    assert time_limit(None, late) is late
    assert time_limit(3, late).seconds == 3
    assert time_limit(300, late) is late
    assert time_limit(None, None).seconds == 60


def test_commands_share_one_deadline():
    verbs = Recording([ran()])
    verbs.succeed("a", "b", timeout=5)

    assert verbs.limits[0] is verbs.limits[1]


def test_the_first_failure_ends_a_row_of_commands():
    verbs = Recording([ran(), ran("b", status=1, stderr=b"why"), ran()])

    with pytest.raises(SSHCommandError, match="`b` gave exit status 1") as caught:
        verbs.succeed("a", "b", "c")
    assert caught.value.details == "$ b\nwhy"
    assert len(verbs.limits) == 2


def test_waiting_ends_with_the_first_success():
    verbs = Recording([ran(status=1), ran(status=1), ran(stdout=b"yes")])

    assert verbs.wait_until_succeeds("a", timeout=5) == "yes"


def test_a_try_that_had_no_time_does_not_hide_the_last_one_that_had():
    class Slow(Recording):
        def execute(self, command, *, deadline, **options) -> CommandResult:
            if len(self.limits) == 2:
                deadline.pause(5)
                raise SSHCommandError("`a` did not end within 0.2 s")
            return super().execute(command, deadline=deadline, **options)

    with pytest.raises(WaitTimeoutError) as caught:
        Slow([ran("a", status=1, stdout=b"not yet")]).wait_until_succeeds("a", timeout=0.2)

    assert caught.value.details == "$ a\nnot yet\nIt gave exit status 1."


def test_a_try_that_fails_before_the_limit_is_not_the_limits_fault():
    def check() -> None:
        raise SSHCommandError("`systemctl` printed too much")

    with pytest.raises(SSHCommandError, match="printed too much"):
        wait_for(check, Deadline.after(5), what="something")
