from __future__ import annotations

import shutil
import subprocess

import pytest

from pytest_bootc.errors import GuestError
from pytest_bootc.machine.freshening import SETTLE, freshen, parse_settled


def test_the_first_timer() -> None:
    assert parse_settled("running\n1800000000\nsettled\n") == 1800000000.0
    assert parse_settled("degraded\nsettled\n") is None
    assert parse_settled("0\nsettled\n") == 0.0  # one that could not be read: taken for overslept


@pytest.mark.parametrize("output", ["", "running\n", "sh: systemctl: not found\n"])
def test_a_guest_that_does_not_settle(output: str) -> None:
    with pytest.raises(GuestError, match="did not say whether its boot has settled"):
        parse_settled(output)


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_scripts_are_scripts(shell: str) -> None:
    program = shutil.which(shell)
    assert program is not None
    seed = bytes(range(32))
    for script in (SETTLE, *(freshen(1.25, seed, "a1b2", timers=timers) for timers in (True, False))):
        subprocess.run([program, "-n", "-c", script], check=True)


def test_the_seed_is_all_of_the_bytes() -> None:
    script = freshen(0, bytes(range(256)), "x", timers=False)
    (line,) = [line for line in script.splitlines() if line.endswith(">/dev/urandom")]
    printed = subprocess.run(["sh", "-c", line.partition(" >")[0]], check=True, capture_output=True).stdout
    assert printed == bytes(range(256))
