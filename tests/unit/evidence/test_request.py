"""The request is run by this machine's own shells."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pytest_bootc.command import run
from pytest_bootc.deadline import Deadline
from pytest_bootc.evidence.request import Answer, Source, request, sources, split

Ask = Callable[..., dict[str, Answer]]
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    return {"busybox": ["busybox", "sh", "-c"]}.get(request.param, [request.param, "-c"])


@pytest.fixture
def ask(shell: list[str], tmp_path: Path) -> Ask:
    """Run the request as the guest's agent does: with its output in a file, and waiting for its first process only."""
    return partial(asked, tmp_path / "output", shell)


def asked(
    output: Path, shell: list[str], wanted: list[Source], seconds: int = 5, factor: float = 1
) -> dict[str, Answer]:
    command = [*shell, request(wanted, factor, seconds)]
    into = 'output=$1; shift; "$@" >"$output" 2>&1 </dev/null'
    run(["sh", "-c", into, "sh", str(output), *command], deadline=Deadline.after(20), check=False)
    return split(output.read_text(), wanted)


def test_each_source_answers_in_its_turn(ask: Ask) -> None:
    wanted = [
        Source("one", 'echo "it\'s"; echo error >&2', 1, 100),
        Source("two", "exit 3", 1, 100),
        Source("three", "cat; printf 'no end'", 1, 100),
    ]
    assert ask(wanted) == {
        "one": Answer("it's\nerror\n"),
        "two": Answer("", "the commands for it ended with status 3"),
        "three": Answer("no end"),
    }


def test_what_is_too_long_is_cut_and_ends_its_program(ask: Ask) -> None:
    began = time.monotonic()
    answers = ask([Source("long", "yes", 3, 4096, endless=True), Source("next", "echo there", 1, 100)])
    assert time.monotonic() - began < 2
    assert answers["long"] == Answer("y\n" * 2048, "cut at 4 KiB")
    assert answers["next"] == Answer("there\n")


def test_what_is_long_is_cut_here(ask: Ask) -> None:
    for seconds in (0, 1):
        wanted = [
            Source("long", "head -c 10000 /dev/zero | tr '\\0' x", seconds, 4096),
            Source("next", "echo there", 1, 100),
        ]
        assert ask(wanted) == {"long": Answer("x" * 4096, "cut at 4 KiB"), "next": Answer("there\n")}


def test_what_cannot_hang_is_run_by_the_shell_itself(ask: Ask) -> None:
    wanted = [Source("one", "echo $$; echo error >&2; exit 3", 0, 100), Source("two", "echo $PPID", 1, 100)]
    answers = ask(wanted)
    assert answers["one"].trouble == "the commands for it ended with status 3"
    assert answers["one"].text.endswith("error\n")


def test_what_hangs_is_ended_and_what_it_said_is_kept(ask: Ask) -> None:
    answers = ask([Source("slow", "echo begun; sleep 10", 1, 100), Source("next", "echo there", 1, 100)])
    assert answers["slow"].text.startswith("begun\n")
    assert answers["slow"].trouble == "it took too long, and was ended"
    assert answers["next"] == Answer("there\n")


def test_when_the_whole_time_is_up_there_is_what_came_before(ask: Ask) -> None:
    wanted = [
        Source("one", "echo there", 1, 100),
        Source("slow", "echo begun; sleep 10", 4, 100),
        Source("never", "echo never", 1, 100),
    ]
    began = time.monotonic()
    answers = ask(wanted, 1)
    assert time.monotonic() - began < 3
    assert answers == {
        "one": Answer("there\n"),
        "slow": Answer("begun\n", "the time for all of the evidence was up"),
    }, "and no shell says that another was killed"


def test_two_rows_are_taken_at_a_time(ask: Ask) -> None:
    wanted = [
        Source("one", "sleep 1; echo there", 2, 100),
        Source("two", "sleep 1; echo there", 2, 100, aside=True),
        Source("three", "echo there", 2, 100, endless=True, aside=True),
    ]
    began = time.monotonic()
    assert ask(wanted) == dict.fromkeys(("one", "two", "three"), Answer("there\n"))
    assert time.monotonic() - began < 1.9


def test_a_row_that_hangs_does_not_hold_up_the_other(ask: Ask) -> None:
    late = "the time for all of the evidence was up"
    for aside in (False, True):
        hangs = [Source("hangs", "echo begun; sleep 10", 4, 100, aside=aside), Source("late", "", 1, 100, aside=aside)]
        answers = ask([*hangs, Source("other", "echo there", 1, 100, aside=not aside)], 1)
        assert answers == {"hangs": Answer("begun\n", late), "other": Answer("there\n")}


def test_what_is_only_asked_where_there_is_something(ask: Ask) -> None:
    wanted = [
        Source("there", "echo there", 1, 100, where="/proc/sel*"),
        Source("not", "echo not", 1, 100, where="/nowhere/*"),
    ]
    assert ask(wanted) == {"there": Answer("there\n"), "not": Answer("")}


def test_a_guest_without_timeout_is_asked_all_the_same(tmp_path: Path) -> None:
    for name in ("sh", "head", "cat", "rm"):
        program = shutil.which(name)
        assert program is not None
        (tmp_path / name).symlink_to(program)
    wanted = [Source("one", "echo there", 1, 100)]
    done = run([tmp_path / "sh", "-c", f"PATH={tmp_path}; {request(wanted, 1, 5)}"], deadline=Deadline.after(20))
    assert split(done.stdout.decode(), wanted) == {"one": Answer("there\n")}


def test_noise_between_the_answers_is_left_out() -> None:
    wanted = [Source("one", "", 1, 100)]
    assert split("noise\x1eother\nx\x1eone\ntext\n\x1eone=0\n\x1eother=0\n", wanted) == {"one": Answer("text\n")}
    assert split("", wanted) == {}


def test_an_emulated_guest_has_more_time_up_to_three_seconds_for_each() -> None:
    wanted = [Source("one", "x", 1, 10)]
    assert "take one 1 x" in request(wanted, 1, 5)
    assert "take one 2 x" in request(wanted, 1.5, 5)
    assert "take one 3 x" in request(wanted, 15, 5)


def test_this_machine_answers_all_that_needs_no_systemd(ask: Ask) -> None:
    wanted = [source for source in sources(5) if source.name in ("facts", "mounts", "processes")]
    answers = ask(wanted, seconds=15, factor=10)
    assert [name for name, answer in answers.items() if answer.trouble] == []
    assert answers["facts"].text.startswith("kernel: Linux version ")
