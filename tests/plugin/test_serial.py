"""Tests that must not run at the same time, over several workers of pytest-xdist."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

Judge = Callable[..., pytest.RunResult]

ALL = ("load", "loadscope", "loadfile", "loadgroup", "worksteal")

# Each test notes its worker, its beginning and its end, and takes long enough for another worker to come between.
NOTES = """
import os, pathlib, time, pytest
def note(what):
    with pathlib.Path("log").open("a") as log:
        log.write(f"{os.environ.get('PYTEST_XDIST_WORKER')} {what}\\n")
@pytest.fixture(autouse=True)
def noted(request):
    note(f"+ {request.node.name}")
    time.sleep(0.02)
    yield
    note(f"- {request.node.name}")
"""
SERIAL = """
import pytest
@pytest.mark.serial(group="{group}")
def test_{name}_1(): pass
def test_{name}_free_1(): pass
@pytest.mark.serial("{group}")
class Test:
    def test_{name}_2(self): pass
    def test_{name}_3(self): pass
def test_{name}_free_2(): pass
@pytest.mark.serial
def test_{name}_unnamed(): pass
"""


@pytest.fixture
def notes(pytester: pytest.Pytester) -> Callable[[], list[list[str]]]:
    """Have tests noted; what was: worker, sign and test."""
    pytester.makeconftest(NOTES)
    return lambda: [line.split() for line in (pytester.path / "log").read_text().splitlines()]


def in_group(log: list[list[str]], *tests: str) -> list[list[str]]:
    return [entry for entry in log if entry[2] in tests]


@pytest.mark.parametrize("dist", ALL)
def test_a_group_runs_on_one_worker_in_order(
    pytester: pytest.Pytester, notes: Callable[[], list[list[str]]], dist: str
) -> None:
    files = {f"test_{name}": SERIAL.format(group=group, name=name) for name, group in zip("abcd", "xyxy", strict=True)}
    pytester.makepyfile(**files)
    result = pytester.runpytest_subprocess("-n2", f"--dist={dist}")
    result.assert_outcomes(passed=24)
    log = notes()
    for pair in ("ac", "bd"):
        expected = [f"test_{name}_{number}" for name in pair for number in (1, 2, 3)]
        mine = in_group(log, *expected)
        assert len({worker for worker, _, _ in mine}) == 1
        assert [(sign, test) for _, sign, test in mine] == [(sign, test) for test in expected for sign in "+-"]
    unnamed = in_group(log, *(f"test_{name}_unnamed" for name in "abcd"))
    assert len({worker for worker, _, _ in unnamed}) == 1
    assert len({worker for worker, _, _ in log}) == 2


def test_the_groups_are_known_before_the_tests_are_reported(
    pytester: pytest.Pytester, notes: Callable[[], list[list[str]]]
) -> None:
    pytester.makeconftest(
        f"{NOTES}\n"
        "def pytest_collection_finish():\n"
        "    time.sleep(0.5)  # between xdist's report and whatever comes too late\n"
    )
    pytester.makepyfile(
        "import pytest\n@pytest.mark.serial\n@pytest.mark.parametrize('number', range(8))\ndef test_it(number): pass"
    )
    pytester.runpytest_subprocess("-n2").assert_outcomes(passed=8)
    assert len({worker for worker, _, _ in notes()}) == 1


def test_scopes_stay_together(pytester: pytest.Pytester, notes: Callable[[], list[list[str]]]) -> None:
    """What --dist says of all other tests holds."""
    free = "\n".join(f"def test_{{name}}_{number}(): pass" for number in range(6))
    pytester.makepyfile(
        **{f"test_{name}": free.format(name=name) for name in "abcd"}, test_e=SERIAL.format(group="x", name="e")
    )
    result = pytester.runpytest_subprocess("-n2", "--dist=loadfile")
    result.assert_outcomes(passed=30)
    for name in "abcd":
        assert len({entry[0] for entry in notes() if entry[2].startswith(f"test_{name}_")}) == 1


def test_each_worker_runs_all(pytester: pytest.Pytester, notes: Callable[[], list[list[str]]]) -> None:
    pytester.makepyfile(SERIAL.format(group="x", name="a"))
    result = pytester.runpytest_subprocess("--tx=2*popen", "--dist=each")
    result.assert_outcomes(passed=12)
    assert len({entry[0] for entry in in_group(notes(), "test_a_1")}) == 2


@pytest.mark.parametrize("dist", ["load", "loadscope"])
def test_the_rest_of_a_group_whose_worker_dies(
    pytester: pytest.Pytester, notes: Callable[[], list[list[str]]], dist: str
) -> None:
    pytester.makepyfile(
        """
        import os, pytest
        @pytest.mark.serial
        @pytest.mark.parametrize("number", range(6))
        def test_it(number):
            if number == 2:
                os._exit(1)
        @pytest.mark.parametrize("number", range(4))
        def test_free(number): pass
        """
    )
    result = pytester.runpytest_subprocess("-n2", f"--dist={dist}")
    result.assert_outcomes(passed=9, failed=1)
    mine = [(worker, sign, test) for worker, sign, test in notes() if test.startswith("test_it")]
    assert [test for _, sign, test in mine if sign == "+"] == [f"test_it[{number}]" for number in range(6)]
    assert len({worker for worker, _, _ in mine[:5]}) == 1
    assert len({worker for worker, _, _ in mine[5:]}) == 1
    assert mine[0][0] != mine[-1][0]


def test_more_workers_than_tests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.serial\ndef test_one(): pass\ndef test_two(): pass")
    pytester.runpytest_subprocess("-n4").assert_outcomes(passed=2)


def test_only_serial_tests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import pytest\n@pytest.mark.serial\n@pytest.mark.parametrize('n', range(5))\ndef test_one(n): pass"
    )
    pytester.runpytest_subprocess("-n3").assert_outcomes(passed=5)


def test_it_stops_at_a_failure(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import pytest\n@pytest.mark.serial\n@pytest.mark.parametrize('n', range(50))\ndef test_one(n): assert n != 1"
    )
    result = pytester.runpytest_subprocess("-n2", "-x")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*stopping after 1 failures*"])


def test_workers_that_collect_differently_are_told_apart_as_ever(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os, pytest
        @pytest.mark.serial
        @pytest.mark.parametrize("worker", [os.environ.get("PYTEST_XDIST_WORKER")])
        def test_it(worker): pass
        """
    )
    result = pytester.runpytest_subprocess("-n2")
    result.stdout.fnmatch_lines(["*Different tests were collected between gw? and gw?*"])


@pytest.mark.parametrize("arguments", ["1", "'a', 'b'", "name='x'", "'a', group='b'", "group=None"])
def test_a_marker_that_cannot_be_read(pytester: pytest.Pytester, arguments: str) -> None:
    pytester.makepyfile(f"import pytest\n@pytest.mark.serial({arguments})\ndef test_it(): pass\ndef test_good(): pass")
    result = pytester.runpytest_subprocess("-n2")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*the marker serial takes the name of a group, or nothing*"])


def test_in_a_run_that_judges(
    judge: Judge, pytester: pytest.Pytester, layout: Callable[..., str], notes: Callable[[], list[list[str]]]
) -> None:
    """A group is one over all images: what it keeps apart is none of theirs."""
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.serial
        @pytest.mark.parametrize("number", range(3))
        def test_it(vm, number): pass
        @pytest.mark.parametrize("number", range(6))
        def test_free(vm, number): pass
        """
    )
    result = judge("-n2", f"--image={layout('other')}", apart=True)
    result.assert_outcomes(passed=18)
    assert len({worker for worker, _, test in notes() if test.startswith("test_it")}) == 1
    assert len({worker for worker, _, _ in notes()}) == 2


def test_nothing_is_left_behind(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "tmp").mkdir()
    pytester.makeconftest(
        """
        import pathlib, tempfile
        def pytest_runtest_logstart():
            found = list(pathlib.Path(tempfile.gettempdir()).glob("pytest-bootc-*"))
            print("FOUND", len(found), [path.stat().st_mode & 0o777 for path in found])
        """
    )
    pytester.makepyfile("import pytest\n@pytest.mark.serial\ndef test_one(): pass")
    pytester.runpytest_subprocess("-n2").stdout.fnmatch_lines(["*FOUND 1 [[]448[]]*"])
    pytester.makepyfile("def test_one(): pass")
    pytester.runpytest_subprocess("-n2").stdout.fnmatch_lines(["*FOUND 0*"])
    assert list((tmp_path / "tmp").glob("pytest-bootc-*")) == []


def test_without_xdist(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SERIAL.format(group="x", name="a"))
    pytester.runpytest_subprocess("-pno:xdist").assert_outcomes(passed=6)
    pytester.runpytest_subprocess().assert_outcomes(passed=6)
