"""The harness itself: it tells what is not as a case says, and sees whatever a run leaves behind."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from typing import Any

import pytest
from harness import MARKER, Bed, Case, Ended, Row, table

pytestmark = pytest.mark.integration

BREAK = "test_inner::test_break[server]"
CASE = Case("a case", "a fault", states={"test_break": "fail"}, quote=r"line \d", within={"test_break": 5})
AS_IT_SHOULD = Ended(1, "a line 7", {BREAK: "fail"}, {BREAK: 4.0}, frozenset(["not judged=x.service"]))


def test_nothing_is_wrong_where_all_is_as_the_case_says() -> None:
    assert AS_IT_SHOULD.faults(dataclasses.replace(CASE, reported=r"not judged=x\.service")) == []
    assert AS_IT_SHOULD.catches(CASE)


@pytest.mark.parametrize(
    ("change", "fault", "caught"),
    [
        ({"status": 0}, "exit status 0 instead of 1", False),
        ({"status": 3}, "exit status 3 instead of 1", False),
        ({"status": 10}, "exit status 10 instead of 1", True),
        ({"states": {BREAK: "infra"}}, f"test_break: {{'{BREAK}': 'infra'}} instead of fail", True),
        ({"states": {}}, "test_break: no such test instead of fail", True),
        ({"text": "no line"}, r"nothing like 'line \\d' is shown", True),
        ({"seconds": {BREAK: 6.0}}, f"{BREAK} took 6 s instead of 5", True),
    ],
)
def test_what_is_not_as_the_case_says(change: dict[str, Any], fault: str, caught: bool) -> None:  # noqa: FBT001
    ended = dataclasses.replace(AS_IT_SHOULD, **change)
    assert ended.faults(CASE) == [fault]
    assert ended.catches(CASE) is caught


def test_a_property_that_is_not_reported() -> None:
    wanted = dataclasses.replace(CASE, reported=r"not judged=y\.service")
    assert AS_IT_SHOULD.faults(wanted) == [r"nothing like 'not judged=y\\.service' is in the JUnit report"]


def test_a_fault_that_must_change_nothing_is_caught_by_being_as_the_case_says() -> None:
    harmless = dataclasses.replace(CASE, status=0)
    assert not AS_IT_SHOULD.catches(harmless)
    assert dataclasses.replace(AS_IT_SHOULD, status=0).catches(harmless)


@pytest.mark.parametrize(
    ("left", "of_a_machine"),
    [
        ("run/pytest-bootc-1/qmp", True),
        ("cache/pytest-bootc/vms/vm-1/overlay.qcow2", True),
        ("tmp/file", False),
        ("cache/pytest-bootc/locks/disk-1", False),
        ("cache/pytest-bootc/disks/v1/.1.2.building/file", False),
        ("cache/pytest-bootc/layers/v1/1/.1.2.lock", False),
    ],
)
def test_files_that_are_left(bed: Bed, left: str, of_a_machine: bool) -> None:  # noqa: FBT001
    bed.use_fresh_cache()
    assert bed.leftovers() == []
    path = bed.path / left
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert len(bed.leftovers()) == 1
    assert len(bed.leftovers(of_machines_only=True)) == of_a_machine


def test_processes_that_are_left(bed: Bed) -> None:
    with subprocess.Popen(["sleep", "60"], env={**os.environ, MARKER: str(bed.path)}) as left:
        assert bed.leftovers() == [f"process {left.pid}: sleep\0" + "60\0"]
        bed.kill_all()
    assert bed.leftovers() == []


def test_a_run_that_judges_nothing(bed: Bed) -> None:
    with bed.run("oci:/nowhere", "def test_inner(guest):\n    pass\n") as running:
        ended = running.end()
    assert (ended.status, ended.states) == (4, {})
    assert "/nowhere" in ended.text
    assert bed.leftovers() == []


def test_the_table() -> None:
    rows = [
        Row("one", "a fault", caught=True, right=True, seconds=61.4),
        Row("two", "another", caught=False, right=False, seconds=0.6),
    ]
    assert list(table(rows)) == [
        "red: case  caught  right  seconds  seeded",
        "red: one   yes     yes         61  a fault",
        "red: two   NO      NO           1  another",
        "red: 2 seeded, 1 caught (50 %), 1 classified right (50 %), 62 s",
    ]
