"""The command `pytest-bootc steps`."""

from __future__ import annotations

import pytest

from pytest_bootc import cli
from pytest_bootc.features.steps import PHRASES


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = cli.main(["steps", *arguments])
    return status, capsys.readouterr().out


def test_every_step_is_listed_once(capsys: pytest.CaptureFixture[str]) -> None:
    status, told = listed(capsys)
    lines = [line.strip() for line in told.splitlines()]
    assert status == 0
    assert sorted(line for line in lines if line in {phrase.shown for phrase in PHRASES}) == sorted(
        phrase.shown for phrase in PHRASES
    )
    assert "``" not in told
    assert max(map(len, lines)) < 150


def test_a_group_with_what_its_steps_mean(capsys: pytest.CaptureFixture[str]) -> None:
    _, told = listed(capsys, "--grep", "exit status is {one}")
    assert told == (
        "Commands, and how they end\n\n"
        "  Then the exit status is {one} or {other}\n"
        "      The last command exited with one of these statuses.\n\n"
    )


@pytest.mark.parametrize("word", ["dbus", "D-Bus", "DBUS"])
def test_words_are_looked_for_in_groups_too(capsys: pytest.CaptureFixture[str], word: str) -> None:
    _, told = listed(capsys, "--grep", word)
    assert "Then the name {name} is owned on the session bus\n" in told
    assert "Given a user\n" not in told


def test_steps_that_mean_the_same_stand_together(capsys: pytest.CaptureFixture[str]) -> None:
    _, told = listed(capsys, "--grep", "TCP port")
    assert "  Then the TCP port {port} is open\n  Then the TCP port {port} is closed\n      Something" in told


def test_a_word_that_no_step_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys, "--grep", "quantum") == (1, "no step has 'quantum' in it\n")
