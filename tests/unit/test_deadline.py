from __future__ import annotations

import itertools
import time

import pytest

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import WaitTimeoutError


def test_a_deadline_is_a_point_that_comes_nearer() -> None:
    deadline = Deadline.after(0.05)
    first = deadline.remaining()
    assert 0 < first <= 0.05
    assert not deadline.expired()
    deadline.pause(0.02)
    assert deadline.remaining() <= first - 0.02
    began = time.monotonic()
    deadline.pause(10)
    assert time.monotonic() - began < 5
    assert deadline.remaining() == 0.0
    assert deadline.expired()


def test_the_sooner_of_two() -> None:
    far = Deadline.after(100)
    near = far.sooner(1)
    assert near.remaining() <= 1
    assert near.seconds == 1
    assert near.sooner(50) is near


def test_a_wait_looks_at_once_and_returns_what_it_saw() -> None:
    assert wait_until(lambda: "seen", Deadline.after(0), what="x") == "seen"


def test_a_wait_looks_again_until_something_is_there() -> None:
    looks: list[float] = []

    def check() -> int | None:
        looks.append(time.monotonic())
        return 7 if len(looks) == 4 else None

    assert wait_until(check, Deadline.after(20), what="x") == 7
    pauses = [late - early for early, late in itertools.pairwise(looks)]
    assert all(pause >= least for pause, least in zip(pauses, (0.02, 0.03, 0.045), strict=True))


def test_a_wait_looks_once_more_at_the_very_end() -> None:
    deadline = Deadline.after(0.06)
    assert wait_until(deadline.expired, deadline, what="the end") is True


def test_a_wait_that_is_over_tells_what_was_seen_last() -> None:
    began = time.monotonic()
    with pytest.raises(WaitTimeoutError) as caught:
        wait_until(lambda: None, Deadline.after(0.1), what="the moon", last=lambda: "only clouds")
    assert 0.1 <= time.monotonic() - began < 5
    assert caught.value.brief == "waited 0.1 s for the moon"
    assert caught.value.details == "only clouds"


def test_a_check_that_raises_ends_the_wait() -> None:
    def check() -> None:
        raise RuntimeError("it will never come")

    with pytest.raises(RuntimeError, match="never"):
        wait_until(check, Deadline.after(60), what="x")
