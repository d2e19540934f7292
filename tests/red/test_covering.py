"""The page of what is covered: what counts, and that most of it does."""

from __future__ import annotations

import collecting
import covering
import pytest
from breaking import Break
from collecting import Check
from covering import Covered, State

PACKAGES = {"unit:uupd.timer": "uupd", "flatpak:org.example.*": "an application", "an image named bluefin": "Bluefin"}


@pytest.mark.parametrize(
    ("outcomes", "covered"),
    [
        ({"server": "passed"}, Covered("a", State.COVERED, ("server",), ())),
        ({"server": "skipped: needs x", "desk": "passed"}, Covered("a", State.COVERED, ("desk",), ())),
        ({"server": "skipped: needs unit:uupd.timer"}, Covered("a", State.NAMED, ("server",), ("uupd",))),
        (
            {"server": "skipped: needs flatpak:org.example.A, an image named bluefin"},
            Covered("a", State.NAMED, ("server",), ("Bluefin", "an application")),
        ),
        ({"server": "skipped: needs network, unit:uupd.timer"}, Covered("a", State.NAMED, ("server",), ("uupd",))),
        ({"server": "skipped: needs network, unit:other"}, Covered("a", State.MISSING, ("server",), ())),
        ({"server": "skipped: not judged"}, Covered("a", State.MISSING, ("server",), ())),
        ({"server": "skipped: needs x", "desk": "skipped: needs unit:uupd.timer"}, State.NAMED),
        ({}, Covered("a", State.MISSING, (), ())),
    ],
)
def test_what_counts(outcomes: dict[str, str], covered: Covered | State) -> None:
    told = covering.judge("a", {image: {"a": outcome} for image, outcome in outcomes.items()}, PACKAGES)
    assert covered == (told.state if isinstance(covered, State) else told)


def test_a_row_tells_all() -> None:
    rows = [
        Covered("s/a.py::b[1]", State.COVERED, ("server",), ()),
        Covered("s/a.py::b[2]", State.NAMED, (), ("uupd",)),
    ]
    check = Check(("program:a|b",), ("bluefin",))
    broken = Break("s/a.py::b[1]", do="# why\nrm /a | cat\nrm /b\n")
    told = covering._row("s/a.py::b", rows, check, [broken], "")
    assert told == ("a.py: b", "1 of 2: server, no: uupd", r"`program:a\|b`, image `bluefin`", r"`rm /a \| cat …`")
    assert covering._row("s/a.py::b", rows[1:], Check((), ()), [], "why not")[1:] == ("no: uupd", "", "why not")


@pytest.mark.integration
def test_most_checks_are_covered_or_lack_what_no_package_has() -> None:
    judged = covering.covered_checks(collecting.read())
    missing = [each.name for each in judged if each.state is State.MISSING]
    assert covering.share(judged) >= 0.8, missing
