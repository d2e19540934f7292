from __future__ import annotations

import inspect
import pickle
import re

import pytest

from pytest_bootc import errors
from pytest_bootc.errors import Blame, BootcTestError, DiskError, HealthError, SSHCommandError, WaitTimeoutError

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, BootcTestError) and kind.__module__ == errors.__name__
]
_LINE = re.compile(r"^ {4}(?P<indent>[│ ]*)(?:[├└]── )?(?P<name>\w+Error)\s+(?P<blame>usage|image|lab|blame)")


def drawn() -> dict[str, tuple[str, str]]:
    """Name to the parent's name and the blame, as the docstring draws it."""
    tree: dict[str, tuple[str, str]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        depth = 0 if match["name"] == "BootcTestError" else len(match["indent"]) // 4 + 1
        above[depth:] = [match["name"]]
        tree[match["name"]] = (above[depth - 1] if depth else "Exception", match["blame"])
    return tree


def test_the_drawn_tree_is_the_real_one() -> None:
    real = {kind.__name__: (kind.__bases__[0].__name__, kind.blame.value) for kind in KINDS}
    picture = drawn()
    assert picture.pop("BootcTestError") == ("Exception", "blame")  # the column's head
    assert real.pop("BootcTestError") == ("Exception", "lab")
    assert picture == real
    assert len(real) > 10


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_keeps_all_its_parts_on_the_way_from_a_worker(kind: type[BootcTestError]) -> None:
    sent = kind("it broke", details="proof\nmore", resolution="mend it")
    got = pickle.loads(pickle.dumps(sent))
    assert type(got) is kind
    assert (got.brief, got.details, got.resolution, got.blame) == ("it broke", "proof\nmore", "mend it", kind.blame)
    assert str(got) == str(sent)


def test_the_text_answers_the_three_questions() -> None:
    assert str(DiskError("it broke")) == "it broke"
    assert str(DiskError("it broke", details="one\ntwo", resolution="mend it")) == (
        "it broke\n  one\n  two\nWhat to do: mend it"
    )
    assert DiskError("x").blame is Blame.LAB


def test_only_missed_expectations_are_assertions() -> None:
    assert {kind for kind in KINDS if issubclass(kind, AssertionError)} == {
        SSHCommandError,
        WaitTimeoutError,
        HealthError,
    }
