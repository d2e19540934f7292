"""Features as tests: what is collected, how it ends, and how a failure is told."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Write = Callable[[Mapping[str, str]], None]
Judge = Callable[..., pytest.RunResult]

STEPS = """
from behave import given, then, when

@given("the number {n:d}")
def step_given(context, n):
    context.n = n

@then("it is {n:d}")
def step_is(context, n):
    assert context.n == n

@when("{kind} is raised")
def step_raises(context, kind):
    raise {"KeyError": KeyError, "KeyboardInterrupt": KeyboardInterrupt}[kind]("on purpose")
"""
FEATURE = """
@whole
Feature: Numbers
  What one has to know about them.

  Background:
    Given the number 3

  @smoke @issue.12 @bug:7
  Scenario: Good
    Then it is 3

  Scenario: Bad
    Then it is 4
    And it is 3
    And nobody knows
      | a | long  |
      | 1 | 2     |

  @slow
  Scenario Outline: Many <n>
    Given the number <n>
    Then it is 5

    Examples: small
      | n | word |
      | 5 | five |
      | 6 | a[b  |

    @odd
    Examples: large
      | n | word |
      | 5 | five |

  Rule: Rules hold
    Scenario: Good
      Then it is 3

    Scenario: Good
      Then it is 3

    Scenario: a::b [c]
      When KeyError is raised
"""
FILES = {"features/steps/steps.py": STEPS, "features/numbers.feature": FEATURE}
IDS = [
    "features/numbers.feature::Good",
    "features/numbers.feature::Bad",
    "features/numbers.feature::Many <n>[n=5,word=five]",
    "features/numbers.feature::Many <n>[n=6,word=a(b]",
    "features/numbers.feature::Many <n>[n=5,word=five #2]",
    "features/numbers.feature::Rule: Rules hold::Good",
    "features/numbers.feature::Rule: Rules hold::Good #2",
    "features/numbers.feature::Rule: Rules hold::a:b (c)",
]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that pytest's summary is not cut."""
    monkeypatch.setenv("COLUMNS", "200")


def at(text: str, *, nth: int = 1) -> str:
    """The feature's file with the line in which a text stands."""
    lines = [number for number, line in enumerate(FEATURE.splitlines(), 1) if text in line]
    return f"features/numbers.feature:{lines[nth - 1]}"


def ids(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if ".feature::" in line and " " not in line.partition("::")[0]]


def test_scenarios_are_collected(pytester: pytest.Pytester, write: Write) -> None:
    write(FILES)
    assert ids(pytester.runpytest_inprocess("--collect-only", "-q", "--strict-markers")) == IDS
    pytester.runpytest_inprocess("--collect-only").stdout.fnmatch_lines(
        ["*<FeatureFile numbers.feature>", "*<ScenarioItem Good>", "*<RuleNode Rule: Rules hold>"]
    )


def test_nothing_is_loaded_to_collect(pytester: pytest.Pytester, write: Write) -> None:
    write({**FILES, "features/steps/broken.py": "syntax error"})
    assert ids(pytester.runpytest_inprocess("--collect-only", "-q")) == IDS


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        (["features/numbers.feature::Many <n>"], [2, 3, 4]),
        ([IDS[3]], [3]),
        (["features/numbers.feature::Rule: Rules hold"], [5, 6, 7]),
        (["-m", "smoke and whole"], [0]),
        (["-m", "issue_12 or bug_7"], [0]),
        (["-m", "odd"], [4]),
        (["-m", "slow and not odd"], [2, 3]),
        (["-k", "Bad or a:b"], [1, 7]),
        ([at("Scenario: Good")], [0]),
        ([at("Then it is 3")], [0]),
        ([at("Scenario: Bad"), at("Scenario: Good")], [0, 1]),
        ([at("Scenario Outline")], [2, 3, 4]),
        ([at("| 6 |")], [3]),
        ([at("Rule:")], [5, 6, 7]),
        ([at("Feature:")], list(range(8))),
        ([at("Scenario: Good"), "features"], list(range(8))),
    ],
)
def test_scenarios_are_selected(
    pytester: pytest.Pytester, write: Write, arguments: list[str], chosen: list[int]
) -> None:
    write(FILES)
    assert ids(pytester.runpytest_inprocess("--collect-only", "-q", *arguments)) == [IDS[n] for n in chosen]


def test_a_line_of_a_file_that_is_not_there(pytester: pytest.Pytester, write: Write) -> None:
    write(FILES)
    result = pytester.runpytest_inprocess("features/other.feature:3")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*file or directory not found: features/other.feature:3"])


def test_a_line_counts_for_workers_too(pytester: pytest.Pytester, write: Write) -> None:
    write(FILES)
    pytester.runpytest_inprocess("-n1", at("Scenario: Good")).assert_outcomes(passed=1)


def test_scenarios_run(pytester: pytest.Pytester, write: Write) -> None:
    write(FILES)
    result = pytester.runpytest_inprocess("-rA")
    result.assert_outcomes(passed=5, failed=3)
    result.stdout.fnmatch_lines(
        [
            "FAILED features/numbers.feature::Bad - assert 3 == 4",
            "FAILED features/numbers.feature::Many <n>[[]n=6,word=a(b] - assert 6 == 5",
            "FAILED features/numbers.feature::Rule: Rules hold::a:b (c) - KeyError: 'on purpose'",
        ]
    )


def test_last_failed_and_exit_first(pytester: pytest.Pytester, write: Write) -> None:
    write(FILES)
    pytester.runpytest_inprocess("-x").assert_outcomes(passed=1, failed=1)
    pytester.runpytest_inprocess().assert_outcomes(passed=5, failed=3)
    pytester.runpytest_inprocess("--lf").assert_outcomes(failed=3)
    pytester.runpytest_inprocess("--lf", "features").assert_outcomes(failed=3)


@pytest.mark.parametrize("workers", [[], ["-n1"]])
def test_a_failure_shows_the_scenario_and_the_step(pytester: pytest.Pytester, write: Write, workers: list[str]) -> None:
    write(FILES)
    result = pytester.runpytest_inprocess("features/numbers.feature::Bad", *workers)
    text = result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            at("Scenario: Bad"),
            "  Feature: Numbers",
            "  Scenario: Bad",
            "    Given the number 3",
            ">   Then it is 4",
            "-   And it is 3",
            "?   And nobody knows",
            "?     | a | long |",
            "?     | 1 | 2    |",
            "context = context, n = 4",
            '    @then("it is {n:d}")',
            ">       assert context.n == n",
            "E       assert 3 == 4",
            "E        +  where 3 = context.n",
            "E       @then('nobody knows')",
            "features/steps/steps.py:10: AssertionError",
        ]
    )
    assert "site-packages" not in text.partition("FAILURES")[2]
    assert "pytest_bootc" not in text.partition("FAILURES")[2]


def test_an_undefined_step_comes_with_what_to_write(pytester: pytest.Pytester, write: Write) -> None:
    feature = """
        Feature: Unknown
          Scenario: Unknown
            When I say "it's" to {all}
            Then it is 3
            And nothing
            And nothing
        """
    write({**FILES, "features/numbers.feature": feature})
    result = pytester.runpytest_inprocess("-rf")
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            '[?]   When I say "it\'s" to {all}',
            "-   Then it is 3",
            "[?]   And nothing",
            'undefined step: When I say "it\'s" to {all}',
            'FAILED features/numbers.feature::Unknown - undefined step: When I say "it\'s"*',
        ]
    )
    snippet = text.partition("what is undefined:\n\n")[2].partition("\n\nfrom")[0]
    assert text.count("@then('nothing')") == 1
    assert "INTERNAL" not in text
    # What is to be pasted defines the step.
    write({"features/steps/more.py": snippet})
    again = pytester.runpytest_inprocess("-rf")
    again.stdout.fnmatch_lines(['*NotImplementedError: When I say "it\'s" to {all}'])


def test_what_judges_nothing_fails(pytester: pytest.Pytester, write: Write) -> None:
    feature = """
        Feature: Empty
          Scenario: No steps
          Scenario Outline: No rows
            Given the number <n>
            Examples:
              | n |
        """
    write({**FILES, "features/numbers.feature": feature})
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "FAILED *::No steps - the scenario has no steps: nothing was judged",
            "FAILED *::No rows - the outline has no examples: nothing was judged",
        ]
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"Feature: X\n  Scenario: Y\n    Given a\n    what?\n", '*Parser failure in state=steps at line 4: "what[?]"'),
        (b"Feature: X\n  Scenario: Y\n    Given a\n      | a | b |\n      | 1 |\n", "*Malformed table at line 5*"),
        (b"# language: xx\nFeature: X\n", "*broken.feature: behave knows no language 'xx'*"),
        (b"Feature: \xff\n", "*broken.feature is not UTF-8: *"),
    ],
    ids=["line", "table", "language", "encoding"],
)
def test_a_feature_that_cannot_be_read(pytester: pytest.Pytester, write: Write, content: bytes, told: str) -> None:
    write({**FILES, "features/empty.feature": ""})
    (pytester.path / "features/broken.feature").write_bytes(content)
    result = pytester.runpytest_inprocess("features/broken.feature", "features/empty.feature")
    assert result.ret == 2
    result.stdout.fnmatch_lines([told, "ERROR features/broken.feature*"])
    assert "site-packages" not in result.stdout.str()


def test_reports_name_scenarios(pytester: pytest.Pytester, write: Write, tmp_path: Path) -> None:
    write(
        {**FILES, "features/steps/skip.py": "@given('a skip')\ndef step(context): context.scenario.skip('no reason')"}
    )
    write({"features/skip.feature": "Feature: S\n  Scenario: Skipped\n    Given a skip\n    And the number 3\n"})
    result = pytester.runpytest_inprocess(f"--junitxml={tmp_path}/report.xml", "-rs", "-v")
    result.stdout.fnmatch_lines(
        ["features/numbers.feature::Good PASSED*", "SKIPPED [[]1] features/skip.feature:2: no reason"]
    )
    cases = list(ET.parse(tmp_path / "report.xml").getroot().iter("testcase"))
    names = {(case.get("classname"), case.get("name")) for case in cases}
    assert ("features.numbers.feature", "Many <n>[n=5,word=five]") in names
    assert ("features.numbers.feature.Rule: Rules hold", "Good") in names
