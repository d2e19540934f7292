"""The text of a scenario, and what to write for a step."""

from __future__ import annotations

import ast

import pytest
from behave.matchers import ParseMatcher
from behave.model_type import Status
from behave.parser import parse_feature, parse_steps

from pytest_bootc.features.failures import ScenarioError, UndefinedStepError, snippet, text_of, with_snippets

FEATURE = """
Feature: Shell
  Background:
    Given a session
  Rule: Always
    Scenario: Open
      When I open
        | app      | n |
        | Terminal | 1 |
      Then it says
        \"\"\"
        one
          two
        \"\"\"
      And more
"""


def test_the_text_of_a_scenario() -> None:
    (scenario,) = parse_feature(FEATURE).walk_scenarios()
    states = (Status.passed, Status.failed, Status.undefined, Status.skipped)
    for step, status in zip(scenario.all_steps, states, strict=True):
        step.set_status(status)
    assert list(text_of(scenario, "shell.feature")) == [
        "shell.feature:6",
        "  Feature: Shell",
        "  Rule: Always",
        "  Scenario: Open",
        "    Given a session",
        ">   When I open",
        ">     | app      | n |",
        ">     | Terminal | 1 |",
        "?   Then it says",
        '?     """',
        "?     one",
        "?       two",
        '?     """',
        "-   And more",
    ]


@pytest.mark.parametrize("name", ["plain", 'it\'s "both"', "{braces} and {{more}}", "a \\ backslash", "ünïcode"])
def test_a_snippet_defines_its_step(name: str) -> None:
    (step,) = parse_steps(f"When {name}")
    text = snippet(step)
    assert step.name == name
    function = ast.parse(text).body[1]
    assert isinstance(function, ast.FunctionDef)
    (decorator,) = function.decorator_list
    assert isinstance(decorator, ast.Call)
    pattern = ast.literal_eval(decorator.args[0])
    assert ParseMatcher(lambda context: None, pattern, "when").matches(name)
    assert ParseMatcher(lambda context: None, pattern, "when").check_match(name) == []


def test_missing_steps_are_told_once() -> None:
    steps = parse_steps("Given one\nAnd two\nAnd one")
    failure = with_snippets(UndefinedStepError("undefined step: Given one"), steps)
    assert isinstance(failure, ScenarioError)
    assert str(failure).startswith("undefined step: Given one\n\nDefine in a file of steps/")
    assert str(failure).count("@given('one')") == 1
    other = with_snippets(KeyError("x"), steps)
    assert isinstance(other, KeyError)
    assert "@given('two')" in other.__notes__[0]
    assert not hasattr(with_snippets(KeyError("x"), []), "__notes__")
