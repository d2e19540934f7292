"""The table of states, cell by cell: terminal, JUnit, Allure and exit status agree on what it says."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest

from pytest_bootc.verdict import Cell, State, table

RAISES = {
    State.FAIL: "raise AssertionError('not so')",
    State.INFRA: "raise DiskError('no room')",
    State.USAGE: "raise ConfigError('not possible')",
    State.SKIP: "pytest.skip('not now')",
    State.PASS: "pass",
    State.FLAKY: "tries.append(1); assert len(tries) == 2",
}
TEST = """
import pytest
from pytest_bootc.errors import ConfigError, DiskError

tries = []

@pytest.fixture
def prepared(vm):
    {setup}
    yield
    {teardown}

def test_it(prepared):
    {call}
"""


@pytest.mark.parametrize("cell", table(), ids=lambda cell: f"{cell.state.value}-{cell.phase}")
def test_a_cell(judge: Callable[..., pytest.RunResult], pytester: pytest.Pytester, cell: Cell) -> None:
    phases = dict.fromkeys(("setup", "call", "teardown"), "pass") | {cell.phase: RAISES[cell.state]}
    pytester.makepyfile(TEST.format(**phases))
    options = ["--rerun-failed"] if cell.state is State.FLAKY else []
    result = judge("-v", "--junitxml=junit.xml", "--alluredir=allure", *options)
    assert result.ret == cell.status
    result.stdout.re_match_lines([rf".*::test_it\S* {cell.shown.word}\b"])
    result.stdout.fnmatch_lines([f"*tests: *1 {cell.state.value}*"])

    (case,) = ET.parse(pytester.path / "junit.xml").getroot().iter("testcase")
    elements = [element.tag for element in case if element.tag in ("failure", "error", "skipped")]
    assert elements == ([cell.shown.junit] if cell.shown.junit else [])
    states = [p.attrib["value"] for p in case.iter("property") if p.attrib["name"] == "state"]
    assert states == [cell.state.value]

    results = [json.loads(path.read_text()) for path in (pytester.path / "allure").glob("*-result.json")]
    last = max(results, key=lambda told: told["start"])
    assert last["status"] == cell.shown.allure
    assert len(results) == (2 if cell.state in (State.FLAKY, State.INFRA) else 1)


@pytest.mark.parametrize("cell", table(), ids=lambda cell: f"{cell.state.value}-{cell.phase}")
def test_the_letter_of_a_cell(judge: Callable[..., pytest.RunResult], pytester: pytest.Pytester, cell: Cell) -> None:
    phases = dict.fromkeys(("setup", "call", "teardown"), "pass") | {cell.phase: RAISES[cell.state]}
    pytester.makepyfile(TEST.format(**phases))
    result = judge("-q", *(["--rerun-failed"] if cell.state is State.FLAKY else []))
    letters = {State.FLAKY: "Rf", State.INFRA: "RI"}.get(cell.state, cell.shown.letter)
    if cell.phase == "teardown":
        letters = {State.INFRA: "R.I"}.get(cell.state, f".{cell.shown.letter}")
    result.stdout.re_match_lines([rf"{letters.replace('.', '[.]')} +\[100%\]"])
