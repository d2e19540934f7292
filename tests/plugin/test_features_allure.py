"""What Allure's results have of features: steps with what belongs to them, labels and links of tags, one history."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

Write = Callable[[Mapping[str, str]], None]
Judge = Callable[..., pytest.RunResult]

STEPS = """
from behave import given, then

@given("a table")
@given("a text")
def step_given(context): pass

@given("the number {n:d}")
def step_number(context, n):
    context.attach("image/png", b"picture")
    context.embed("text/plain", "a remark", caption="remark")
    context.n = n

@then("it is {n:d}")
def step_is(context, n):
    assert context.n == n

@given("a skip")
def step_skip(context):
    context.scenario.skip("for today")
"""
FEATURE = """
@allure.label.epic:Desktop
Feature: Shell
  @critical @issue:12 @allure.tms:T-1 @allure.link.home:https://example.org @smoke
  Scenario: Good
    Words about it.

    Given a table
      | a | b,c |
      | 1 | "2" |
    And a text
      \"\"\"
      some words
      \"\"\"

  Scenario: Bad
    Given the number 3
    Then it is 4
    And it is 3

  Scenario: Unknown
    Given nothing known

  Scenario Outline: Many <n>
    Given the number <n>
    Then it is 5

    Examples:
      | n |
      | 5 |
    @skip
    Examples:
      | n |
      | 6 |

  Scenario: Skipped
    Given a skip
    Then it is 3
"""
FILES = {"features/steps/steps.py": STEPS, "features/shell.feature": FEATURE}


@pytest.fixture
def results(pytester: pytest.Pytester, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The results by name of the runs so far; the newest of a name."""

    def run(*arguments: str) -> dict[str, Any]:
        folder = tmp_path / "results"
        pytester.runpytest_inprocess(f"--alluredir={folder}", "--clean-alluredir", "--strict-markers", *arguments)
        files = [json.loads(path.read_text()) for path in folder.glob("*-result.json")]
        for result in files:
            result["folder"] = folder
        return {result["name"]: result for result in files}

    return run


def texts(result: Any) -> list[tuple[str, str, str]]:
    """The attachments of a result or a step, which lie in the folder."""
    return [(each["name"], each["type"], each["source"]) for each in result.get("attachments", ())]


def test_steps(write: Write, results: Callable[..., dict[str, Any]]) -> None:
    write(FILES)
    found = results()
    good, bad = found["Good"], found["Bad"]
    assert [(step["name"], step["status"]) for step in good["steps"]] == [
        ("Given a table", "passed"),
        ("And a text", "passed"),
    ]
    ((_, kind, source),) = texts(good["steps"][0])
    assert kind == "text/csv"
    assert (good["folder"] / source).read_text() == 'a,"b,c"\n1,"""2"""\n'
    ((name, kind, source),) = texts(good["steps"][1])
    assert (name, kind, (good["folder"] / source).read_text()) == ("text", "text/plain", "some words")
    assert good["description"].strip() == "Words about it."

    assert [(step["name"], step["status"]) for step in bad["steps"]] == [
        ("Given the number 3", "passed"),
        ("Then it is 4", "failed"),
        ("And it is 3", "skipped"),
    ]
    assert bad["steps"][1]["parameters"] == [{"name": "n", "value": "4"}]
    assert "assert 3 == 4" in bad["steps"][1]["statusDetails"]["message"]
    assert "behave" not in bad["steps"][1]["statusDetails"]["trace"]
    assert [(name, kind) for name, kind, _ in texts(bad["steps"][0])] == [
        ("image/png", "image/png"),
        ("remark", "text/plain"),
    ]
    assert bad["statusDetails"]["trace"].startswith("features/shell.feature:16\n  Feature: Shell")


def test_an_undefined_step_is_a_failure(write: Write, results: Callable[..., dict[str, Any]]) -> None:
    write(FILES)
    unknown = results()["Unknown"]
    assert unknown["status"] == "failed"
    assert [(step["name"], step["status"]) for step in unknown["steps"]] == [("Given nothing known", "failed")]


def test_labels_and_links(write: Write, results: Callable[..., dict[str, Any]]) -> None:
    write(FILES)
    good = results()["Good"]
    labels = {(label["name"], label["value"]) for label in good["labels"]}
    assert {("epic", "Desktop"), ("feature", "Shell"), ("severity", "critical"), ("tag", "smoke")} <= labels
    assert not [value for name, value in labels if name == "tag" and "allure" in value]
    assert {(link["type"], link["url"], link["name"]) for link in good["links"]} == {
        ("issue", "12", "12"),
        ("tms", "T-1", "T-1"),
        ("link", "https://example.org", "home"),
    }


def test_what_is_skipped_keeps_its_history(write: Write, results: Callable[..., dict[str, Any]]) -> None:
    write(FILES)
    before = results()
    assert before["Skipped"]["status"] == "skipped"
    assert before["Many <n>[n=6]"]["status"] == "skipped"
    write({"features/shell.feature": FEATURE.replace("    @skip\n", "").replace("Given a skip", "Given the number 3")})
    after = results()
    assert after["Skipped"]["status"] == "passed"
    assert after["Many <n>[n=6]"]["status"] == "failed"
    for name in before:
        assert (before[name]["historyId"], before[name]["fullName"]) == (
            after[name]["historyId"],
            after[name]["fullName"],
        )


def test_no_label_without_allure(write: Write, pytester: pytest.Pytester) -> None:
    write(FILES)
    result = pytester.runpytest_inprocess("-p", "no:allure_pytest", "--strict-markers", "-m", "critical")
    result.assert_outcomes(passed=1, deselected=5)


def test_judged_scenarios(write: Write, judge: Judge, tmp_path: Path) -> None:
    write(FILES)
    judge(f"--alluredir={tmp_path}/results")
    found = [json.loads(path.read_text()) for path in (tmp_path / "results").glob("*-result.json")]
    bad = {result["name"]: result for result in found}["Bad"]
    labels = {(label["name"], label["value"]) for label in bad["labels"]}
    assert {("parentSuite", "server:v1"), ("feature", "Shell"), ("state", "fail")} <= labels
    assert {parameter["name"] for parameter in bad["parameters"]} == {"image", "digest"}
    assert bad["fullName"] == "features.shell#Bad"
