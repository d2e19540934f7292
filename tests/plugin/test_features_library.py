"""The step library and a folder's own definitions: whose come first, and that neither disturbs the other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping

import pytest

Write = Callable[[Mapping[str, str]], None]
Judge = Callable[..., pytest.RunResult]

FEATURE = """
Feature: Commands
  Scenario: One
    When I run `true`
    Then it succeeds
"""
OWN = """
from behave import step, then, when

@when("I run `{command}`")
def run(context, command):
    context.own = command

@step("it {outcome}")
def ends(context, outcome):
    assert (context.own, outcome) == ("true", "succeeds")
"""
GUEST = """
import pytest
from pytest_bootc.guest import Guest
from pytest_bootc.shell import CommandResult

class Runner:
    def execute(self, command, *, timeout=None, deadline=None, stdin=b"", env=None):
        return CommandResult(command, 7 if "bad" in command else 0, b"printed\\n", b"", 0.1)

@pytest.fixture(scope="session")
def guest():
    return Guest(Runner())
"""


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that pytest's summary is not cut."""
    monkeypatch.setenv("COLUMNS", "200")


def test_a_feature_needs_nothing_beside_it(pytester: pytest.Pytester, write: Write) -> None:
    write({"a.feature": FEATURE, "conftest.py": GUEST})
    pytester.runpytest_inprocess("a.feature").assert_outcomes(passed=1)


def test_a_folders_own_definitions_come_first(pytester: pytest.Pytester, write: Write) -> None:
    write({"features/a.feature": FEATURE, "features/steps/own.py": OWN})
    pytester.runpytest_inprocess("features", "-W", "error").assert_outcomes(passed=1)


def test_folders_with_own_definitions_and_without(pytester: pytest.Pytester, write: Write) -> None:
    """Whichever is run first."""
    write({"one/a.feature": FEATURE, "one/steps/own.py": OWN, "two/b.feature": FEATURE, "conftest.py": GUEST})
    pytester.runpytest_inprocess("one/a.feature", "two/b.feature").assert_outcomes(passed=2)
    pytester.runpytest_inprocess("two/b.feature", "one/a.feature").assert_outcomes(passed=2)


def test_a_failure_is_a_sentence_and_a_transcript(pytester: pytest.Pytester, write: Write) -> None:
    write({"a.feature": FEATURE.replace("`true`", "`bad`"), "conftest.py": GUEST})
    result = pytester.runpytest_inprocess("a.feature")
    result.assert_outcomes(failed=1)
    assert result.outlines[result.outlines.index("a.feature:3") :][: len(FAILURE)] == FAILURE
    result.stdout.fnmatch_lines(["FAILED a.feature::One - `bad` gave exit status 7"])


FAILURE = [
    "a.feature:3",
    "  Feature: Commands",
    "  Scenario: One",
    "    When I run `bad`",
    ">   Then it succeeds",
    "`bad` gave exit status 7",
    "$ bad",
    "printed",
    "It gave exit status 7.",
]


def test_a_step_file_uses_what_the_library_is_made_of(pytester: pytest.Pytester, write: Write) -> None:
    own = """
    from behave import then
    from pytest_bootc.features.steps import ask, guest_of, missed, result_of, run, user_of
    from pytest_bootc.features.steps.commands import succeeds

    @then("all is well")
    def well(context):
        run(context, "good")
        succeeds(context)
        if ask(context, "bad").status == 7:
            missed("it is not", result_of(context))
    """
    feature = FEATURE + "    And all is well\n"
    write({"features/a.feature": feature, "features/steps/own.py": own, "conftest.py": GUEST})
    result = pytester.runpytest_inprocess("features")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([">   And all is well", "it is not", "$ good", "printed", "It gave exit status 0."])


def test_steps_of_the_library_in_execute_steps(pytester: pytest.Pytester, write: Write) -> None:
    own = """
    from behave import then

    @then("all is well")
    def well(context):
        context.execute_steps("When I run `good`\\nThen it succeeds\\nAnd the output is \\"printed\\"")
        assert context.result.command == "good"
    """
    feature = FEATURE + "    And all is well\n"
    write({"features/a.feature": feature, "features/steps/own.py": own, "conftest.py": GUEST})
    pytester.runpytest_inprocess("features").assert_outcomes(passed=1)


def test_checking_steps_knows_the_library(pytester: pytest.Pytester, write: Write) -> None:
    own = "from behave import then\n@then('it {is_so}')\ndef it(context, is_so): pass\n"
    unknown = FEATURE + "    And nobody knows it\n"
    write({"features/a.feature": FEATURE, "features/steps/own.py": own, "bare/a.feature": unknown})
    result = pytester.runpytest_inprocess("--check-steps", "features")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["every step has one definition, and every definition is used"])
    result = pytester.runpytest_inprocess("--check-steps", "bare/a.feature")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["undefined: bare/a.feature:6: And nobody knows it"])
    assert "unused" not in result.stdout.str()
    assert "ambiguous" not in result.stdout.str()


def test_allure_has_the_fields_of_a_step(pytester: pytest.Pytester, write: Write) -> None:
    write({"a.feature": FEATURE, "conftest.py": GUEST})
    pytester.runpytest_inprocess("a.feature", "--alluredir=results").assert_outcomes(passed=1)
    (result,) = pytester.path.glob("results/*-result.json")
    assert '"parameters": [{"name": "command", "value": "true"}]' in result.read_text()


def test_behave_knows_nothing_of_it(pytester: pytest.Pytester, write: Write) -> None:
    """Not even where a step file has imported from the library."""
    own = "import pytest_bootc.features.steps\n" + OWN
    write({"features/a.feature": FEATURE, "features/steps/own.py": own, "features/b.feature": UNDEFINED})
    ran = subprocess.run(
        [sys.executable, "-m", "behave", "--no-color", "features"], capture_output=True, text=True, check=False
    )
    assert "1 scenario passed, 0 failed, 1 error" in ran.stdout
    assert "the program sh is installed" in ran.stdout


UNDEFINED = """
Feature: A sentence of the library
  Scenario: Two
    Then the program sh is installed
"""


def test_every_field_can_be_quoted(pytester: pytest.Pytester, write: Write) -> None:
    feature = """
    Feature: Quotes
      Scenario: One
        Then the program "two words" is installed
        And the program 'odd is installed
    """
    write({"a.feature": feature, "conftest.py": GUEST})
    pytester.runpytest_inprocess("a.feature").assert_outcomes(passed=1)


def test_a_folder_of_steps_above_the_root_is_somebody_elses(pytester: pytest.Pytester, write: Write) -> None:
    write({"steps/own.py": "nothing that runs", "root/a.feature": FEATURE, "root/conftest.py": GUEST})
    pytester.runpytest_inprocess("root/a.feature", "--rootdir=root").assert_outcomes(passed=1)
    pytester.runpytest_inprocess("root/a.feature", "--rootdir=.").assert_outcomes(errors=1)
