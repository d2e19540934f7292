"""Features that judge images: their machines, hooks per image and machine, states, retries, shipped suites."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Write = Callable[[Mapping[str, str]], None]
Told = Callable[[], list[str]]
Judge = Callable[..., pytest.RunResult]
Install = Callable[..., Path]
Script = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("told")

ENVIRONMENT = """
import os

def tell(*words):
    with open(os.environ["EVENTS"], "a") as events:
        print(*words, file=events)

def before_all(context):
    tell("before_all", context.vm.subject)

def before_feature(context, feature):
    tell("before_feature")

def before_scenario(context, scenario):
    tell("before_scenario", scenario.name)

def after_scenario(context, scenario):
    tell("after_scenario", scenario.name, scenario.status.name)

def after_feature(context, feature):
    tell("after_feature", "vm" in context)

def after_all(context):
    tell("after_all", context.vm.subject)
"""
STEPS = """
from behave import given, then
from pytest_bootc.errors import MachineLostError

tries = []

@given("a machine")
def step_machine(context):
    assert context.vm.facts.backend == "fake"

@given("the laboratory fails once")
def step_once(context):
    tries.append(1)
    if len(tries) == 1:
        raise MachineLostError("QEMU has ended")

@given("the laboratory fails")
def step_always(context):
    raise MachineLostError("QEMU has ended")

@then("the image is bad")
def step_bad(context):
    tries.append(1)
    assert tries == "what was expected"

@then("it is good the second time")
def step_second(context):
    tries.append(1)
    assert len(tries) > 1
"""
TWO = """
Feature: Machines
  Scenario: One
    Given a machine
  Scenario: Two
    Given a machine
"""
FILES = {"features/environment.py": ENVIRONMENT, "features/steps/steps.py": STEPS, "features/m.feature": TWO}


def feature(*steps: str, name: str = "Only", tags: str = "") -> str:
    lines = "".join(f"    {step}\n" for step in steps)
    return f"Feature: F\n  {tags}\n  Scenario: {name}\n{lines}"


def test_hooks_run_once_per_image(
    judge: Judge, write: Write, told: Told, layout: Callable[..., str], script: Script
) -> None:
    log = script("")
    write(FILES)
    result = judge(f"--image={layout('other')}", "-v", image=layout("server"))
    result.assert_outcomes(passed=4)
    assert result.ret == 0
    one = ["before_feature", "before_scenario One", "after_scenario One passed"]
    two = ["before_scenario Two", "after_scenario Two passed", "after_feature True"]
    each = [*one, *two]
    assert told() == [
        "before_all server:v1",
        *each,
        "after_all server:v1",
        "before_all other:v1",
        *each,
        "after_all other:v1",
    ]
    assert sum(line.startswith("provision") for line in log.read_text().splitlines()) == 2
    result.stdout.fnmatch_lines(["features/m.feature::One[[]server:v1] PASSED*"])


def test_an_image_in_the_middle_of_an_outlines_id(judge: Judge, write: Write) -> None:
    outline = "Feature: F\n  Scenario Outline: O <n>\n    Given a machine\n    Examples:\n      | n |\n      | 1 |\n"
    write({**FILES, "features/m.feature": outline})
    result = judge("features/m.feature:6", "-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["features/m.feature::O <n>[[]server:v1-n=1] PASSED*"])


@pytest.mark.parametrize(
    ("step", "state", "status"),
    [
        ("Given a machine", "pass", 0),
        ("Then the image is bad", "fail", 1),
        ("Given nobody knows", "fail", 1),
        ("Given the laboratory fails", "infra", 10),
    ],
)
def test_states(judge: Judge, write: Write, tmp_path: Path, step: str, state: str, status: int) -> None:
    write({**FILES, "features/m.feature": feature(step)})
    result = judge(f"--junitxml={tmp_path}/report.xml")
    assert result.ret == status
    result.stdout.fnmatch_lines([f"  tests: 1 {state}"])
    states = {p.get("value") for p in ET.parse(tmp_path / "report.xml").iter("property") if p.get("name") == "state"}
    assert states == {state}


def test_a_retry_prepares_the_fresh_machine_anew(judge: Judge, write: Write, told: Told) -> None:
    write(
        {
            **FILES,
            "features/m.feature": TWO.replace("Two\n    Given a machine", "Two\n    Given the laboratory fails once"),
        }
    )
    write({"features/n.feature": TWO})
    result = judge("-v")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["  tests: 4 pass", "  run once more: features/m.feature::Two*QEMU has ended*"])
    first = ["before_all server:v1", "before_feature", "before_scenario One", "after_scenario One passed"]
    assert told() == [
        *first,
        "before_scenario Two", "after_scenario Two error", "after_feature True",
        # The next feature needs what before_all has made; but the machine is another one now.
        "after_all server:v1", "before_all server:v1", "before_feature",
        "before_scenario Two", "after_scenario Two passed", "after_feature True",
        "before_feature", "before_scenario One", "after_scenario One passed",
        "before_scenario Two", "after_scenario Two passed", "after_feature True",
        "after_all server:v1",
    ]  # fmt: skip


def test_hooks_that_miss_the_old_machine_do_no_harm(judge: Judge, write: Write, told: Told) -> None:
    broken = ENVIRONMENT.replace(
        'tell("after_all", context.vm.subject)', 'tell("after_all"); tries.append(1); 1 / (len(tries) - 1)'
    )
    write({**FILES, "features/environment.py": f"tries = []\n{broken}"})
    write({"features/m.feature": feature("Given the laboratory fails once"), "features/n.feature": TWO})
    result = judge("-v")
    assert result.ret == 0
    assert told().count("after_all") == 2


def test_a_failure_is_tried_again_where_that_is_asked_for(judge: Judge, write: Write, told: Told) -> None:
    write({**FILES, "features/m.feature": feature("Then it is good the second time")})
    result = judge("--rerun-failed")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["  tests: 1 flaky"])
    assert [line for line in told() if line.startswith("after_scenario")] == [
        "after_scenario Only failed",
        "after_scenario Only passed",
    ]


def test_a_failure_leaves_evidence_and_a_way_to_see_it_again(
    judge: Judge, write: Write, pytester: pytest.Pytester
) -> None:
    write({**FILES, "features/m.feature": feature("Then the image is bad", name="It's <bad>")})
    result = judge("--evidence-dir=kept")
    result.stdout.fnmatch_lines(
        ["*pytest --image *@sha256:* --backend fake 'features/m.feature::It'\"'\"'s <bad>[[]server:v1]'*"]
    )
    (folder,) = (pytester.path / "kept").iterdir()
    assert (folder / "console.log").exists()


def test_the_machine_that_a_scenario_uses_is_told_by_tags(judge: Judge, write: Write, script: Script) -> None:
    log = script("")
    files = {name: text for name, text in FILES.items() if "environment" not in name}
    write({**files, "features/m.feature": feature("Given nothing", tags="@fixture.image")})
    write({"features/steps/more.py": "@given('nothing')\ndef step(context): assert context.image.digest\n"})
    result = judge("-v")
    result.stdout.fnmatch_lines(["*::Only[[]server:v1] PASSED*"])
    assert not log.exists()


def test_needs_of_a_tag(judge: Judge, write: Write) -> None:
    write({**FILES, "features/m.feature": feature("Given a machine", tags="@needs.network @needs.program:podman")})
    result = judge("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines_random(
        ["SKIPPED*needs program:podman*", "  skipped for unmet needs: program:podman (1)"]
    )


def test_needs_of_an_outlines_tags(judge: Judge, write: Write) -> None:
    outline = (
        "Feature: F\n  @needs.command:test%20-e%20/a/b @needs.file:/usr/bin/<n>\n  Scenario Outline: O <n>\n"
        "    Given a machine\n    @needs.app.<n>\n    Examples:\n      | n |\n      | x/y |\n"
    )
    write({**FILES, "features/m.feature": outline})
    result = judge("-rs")
    result.assert_outcomes(skipped=1)
    unmet = ("app:x/y", "command:test -e /a/b", "file:/usr/bin/x/y")
    result.stdout.fnmatch_lines_random([f"  skipped for unmet needs: *{word}*" for word in unmet])
    result.stdout.fnmatch_lines([f"SKIPPED*: needs {', '.join(unmet)}"])


@pytest.mark.parametrize("wheel", [True, False])
def test_shipped_suites_have_features(judge: Judge, install: Install, tmp_path: Path, *, wheel: bool) -> None:
    suites = {
        "boot/test_basics.py": "def test_boots(vm): pass",
        "smoke/conftest.py": "import pytest\n@pytest.fixture\ndef word(): return 'smoke'\n",
        "smoke/test_same.py": "def test_it(vm): pass",
        "smoke/steps/steps.py": "@given('a word')\ndef step(context): assert context.word == 'smoke'\n",
        "smoke/shell.feature": feature("Given a word"),
        "smoke/deeper/other.feature": feature("Given a word", name="Other"),
    }
    install(suites, wheel=wheel)
    result = judge("--suite=smoke", f"--junitxml={tmp_path}/report.xml", "-v", apart=True)
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        ["smoke/deeper/other.feature::Other[[]server:v1]*", "smoke/shell.feature::Only[[]server:v1]*"]
    )
    classes = [case.get("classname") for case in ET.parse(tmp_path / "report.xml").iter("testcase")]
    assert classes == ["boot.test_basics", "smoke.deeper.other.feature", "smoke.shell.feature", "smoke.test_same"]
    one = judge("smoke/shell.feature::Only", "-v", apart=True)
    one.assert_outcomes(passed=1, deselected=2)


@pytest.mark.parametrize("tag", ["@fixture.fresh_vm", "@mutates"])
def test_a_machine_of_its_own(judge: Judge, write: Write, script: Script, told: Told, tag: str) -> None:
    log = script("")
    write({**FILES, "features/m.feature": TWO.replace("  Scenario: One", f"  {tag}\n  Scenario: One")})
    result = judge()
    result.assert_outcomes(passed=2)
    assert sum(line.startswith("provision") for line in log.read_text().splitlines()) == 2
    # What hooks have done to the first machine, they do to the second.
    assert told().count("before_all server:v1") == 2
