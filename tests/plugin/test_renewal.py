"""Which tests get a machine that nobody has used before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Judge = Callable[..., pytest.RunResult]
Script = Callable[..., Path]
Machines = Callable[[], list[int]]

# Each test writes down which machine it has.
CONFTEST = """\
import pytest
@pytest.fixture(autouse=True)
def written_down(request):
    if "vm" in request.fixturenames:
        vm = request.getfixturevalue("vm")
        with open("machines", "a") as file:
            file.write(f"{request.node.originalname} {vm.name}\\n")
"""


@pytest.fixture
def machines(pytester: pytest.Pytester) -> Machines:
    """Which machine each test had, by the number of its first use: [0, 0, 1] changes before the third test."""
    pytester.makeconftest(CONFTEST)

    def read() -> list[int]:
        names = [line.split()[1] for line in (pytester.path / "machines").read_text().splitlines()]
        order = list(dict.fromkeys(names))
        return [order.index(name) for name in names]

    return read


def events(log: Path) -> list[str]:
    return [line.split()[0] for line in log.read_text().splitlines()]


@pytest.mark.parametrize("clones", ["true", "false"])
def test_a_test_that_wants_a_fresh_machine_has_one_for_itself(
    judge: Judge, pytester: pytest.Pytester, script: Script, machines: Machines, clones: str
) -> None:
    script(f"clones = {clones}")
    pytester.makepyfile(
        "def test_a(vm): pass\ndef test_b(vm): pass\ndef test_c(fresh_vm): pass\ndef test_d(fresh_vm, vm): pass\n"
        "def test_e(vm): pass\ndef test_f(vm): pass"
    )
    judge().assert_outcomes(passed=6)
    assert machines() == [0, 0, 1, 2, 3, 3]


def test_the_first_machine_is_fresh_anyway(
    judge: Judge, pytester: pytest.Pytester, script: Script, machines: Machines
) -> None:
    log = script("clones = true")
    pytester.makepyfile("def test_a(fresh_vm): pass")
    judge().assert_outcomes(passed=1)
    assert events(log).count("provision") == 1


@pytest.mark.parametrize("clones", ["true", "false"])
def test_what_comes_after_a_change_has_a_clean_machine(
    judge: Judge, pytester: pytest.Pytester, script: Script, machines: Machines, clones: str
) -> None:
    script(f"clones = {clones}")
    pytester.makepyfile(
        "import pytest\ndef test_a(vm): pass\n@pytest.mark.mutates\ndef test_b(vm): pass\ndef test_c(vm): pass\n"
        "def test_d(): pass\ndef test_e(vm): pass"
    )
    judge().assert_outcomes(passed=5)
    assert machines() == [0, 0, 1, 1]


@pytest.mark.parametrize(("clones", "expected"), [("true", [0, 1, 1]), ("false", [0, 0, 0])])
def test_a_clean_machine_after_a_failure_where_that_is_cheap(
    judge: Judge, pytester: pytest.Pytester, script: Script, machines: Machines, clones: str, expected: list[int]
) -> None:
    script(f"clones = {clones}")
    pytester.makepyfile("def test_a(vm): assert False\ndef test_b(vm): pass\ndef test_c(vm): pass")
    judge().assert_outcomes(failed=1, passed=2)
    assert machines() == expected


def test_a_skipped_test_has_used_nothing(
    judge: Judge, pytester: pytest.Pytester, script: Script, machines: Machines
) -> None:
    script("clones = true")
    pytester.makepyfile(
        "import pytest\ndef test_a(vm): pass\n@pytest.mark.skip\n@pytest.mark.mutates\ndef test_b(vm): pass\n"
        "def test_c(vm): pass"
    )
    judge().assert_outcomes(passed=2, skipped=1)
    assert machines() == [0, 0]


def test_a_test_that_lacks_what_it_needs_has_changed_nothing(
    judge: Judge, pytester: pytest.Pytester, script: Script, machines: Machines
) -> None:
    script('clones = true\ncontrol = [{match = "unmet=0", status = 1}]')
    pytester.makepyfile(
        "import pytest\ndef test_a(vm): pass\n"
        "@pytest.mark.needs('unit:none.service')\n@pytest.mark.mutates\ndef test_b(vm): pass\n"
        "def test_c(vm): pass\n@pytest.mark.mutates\ndef test_d(vm): pytest.skip('late')\ndef test_e(vm): pass"
    )
    judge().assert_outcomes(passed=3, skipped=2)
    assert machines() == [0, 0, 0, 1], "of a, c, d and e"


@pytest.mark.parametrize(("clones", "machines"), [("true", 2), ("false", 1)])
def test_a_suite_begins_with_a_clean_machine_where_that_is_cheap(
    judge: Judge, install: Callable[..., Path], script: Script, clones: str, machines: int
) -> None:
    log = script(f"clones = {clones}")
    install(
        {
            "boot/test_boot.py": "def test_a(vm): pass\ndef test_b(vm): pass",
            "system/test_system.py": "def test_c(vm): pass\ndef test_d(vm): pass",
        },
        wheel=True,
    )
    judge("--suite=system", apart=True).assert_outcomes(passed=4)
    assert events(log).count("provision") == machines


def test_a_machine_that_will_be_needed_is_made_ahead_and_waits(
    judge: Judge, pytester: pytest.Pytester, script: Script
) -> None:
    log = script("clones = true")
    pytester.makepyfile(
        "import time\ndef test_a(vm): time.sleep(0.5)\ndef test_b(vm): pass\ndef test_c(fresh_vm): pass"
    )
    judge().assert_outcomes(passed=3)
    told = events(log)
    assert told[:5] == ["provision", "start", "provision", "resume", "pause"]
    assert "wake" in told
    assert told.count("release") == told.count("provision") == 2


def test_a_spare_that_nobody_needs_is_not_made(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    log = script("clones = true")
    pytester.makepyfile("def test_a(vm): pass\ndef test_b(vm): pass")
    judge().assert_outcomes(passed=2)
    assert events(log).count("provision") == 1


def test_a_spare_that_was_not_used_is_ended(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    log = script("clones = true")
    pytester.makepyfile(
        "import time\ndef test_a(vm):\n    time.sleep(0.5)\n    assert False\ndef test_b(fresh_vm): pass"
    )
    judge("-x").assert_outcomes(failed=1)
    told = events(log)
    assert told.count("release") == told.count("provision") == 2


def test_a_fresh_machine_must_be_named(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    script("clones = true")
    pytester.makepyfile("def test_a(vm, request): request.getfixturevalue('fresh_vm')")
    result = judge()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*fresh_vm was asked for while the test runs*", "*name fresh_vm among*"])


def test_a_worker_makes_a_spare_for_the_test_that_comes_next(
    judge: Judge, pytester: pytest.Pytester, script: Script, machines: Machines
) -> None:
    log = script("clones = true")
    pytester.makepyfile(
        "import time\ndef test_a(vm): time.sleep(0.5)\ndef test_b(fresh_vm): pass\ndef test_c(vm): pass"
    )
    judge("-n1").assert_outcomes(passed=3)
    assert machines() == [0, 1, 2]
    assert "resume" in events(log)
