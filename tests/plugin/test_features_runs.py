"""How features run: fixtures on the context, hooks that fail, steps that end the run, interruptions, durations."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping

import pytest

from pytest_bootc.deadline import Deadline, wait_until

Write = Callable[[Mapping[str, str]], None]
Told = Callable[[], list[str]]

pytestmark = pytest.mark.usefixtures("told")

# Tells what happens, in the file that EVENTS names; each hook may be told by a tag to do something.
ENVIRONMENT = """
import os

def tell(*words):
    with open(os.environ["EVENTS"], "a") as events:
        print(*words, file=events)

def before_all(context):
    tell("before_all")
    context.add_cleanup(tell, "cleanup of all")

def before_feature(context, feature):
    tell("before_feature", feature.name)

def before_scenario(context, scenario):
    tell("before_scenario", scenario.name)
    if "asks" in scenario.tags:
        tell("value", context.value)

def after_scenario(context, scenario):
    tell("after_scenario", scenario.name, scenario.status.name, "value" in context and context.value)

def after_feature(context, feature):
    tell("after_feature", feature.name)

def after_all(context):
    tell("after_all")
"""
STEPS = """
import os, signal, time
import pytest
from behave import given, then, when

@given("nothing")
def step_nothing(context): pass

@when("the run is interrupted")
def step_interrupt(context): raise KeyboardInterrupt

@when("a step within interrupts the run")
def step_within(context): context.execute_steps("When the run is interrupted")

@when("the test is skipped")
def step_skip(context): pytest.skip("as pytest does it")

@when("the test is failed")
def step_fail(context): pytest.fail("as pytest does it")

@when("the run is to end")
def step_abort(context): context.abort("enough")

@when("{n:d} ms pass")
def step_pass(context, n): time.sleep(n / 1000)
"""
CONFTEST = """
import os
import pytest

def tell(*words):
    with open(os.environ["EVENTS"], "a") as events:
        print(*words, file=events)

@pytest.fixture
def value():
    tell("value is made")
    yield "a value"
    tell("value is torn down")

@pytest.fixture(scope="module")
def broad():
    tell("broad is made")
    yield "broad"
    tell("broad is torn down")

@pytest.fixture(scope="session")
def broadest():
    yield "broadest"
    tell("broadest is torn down")
"""


def feature(*steps: str, name: str = "One", tags: str = "") -> str:
    lines = "".join(f"    {step}\n" for step in steps)
    return f"Feature: F\n  {tags}\n  Scenario: {name}\n{lines}"


@pytest.fixture
def folder(write: Write) -> Callable[..., None]:
    """Write a folder of features; ``more`` replaces or adds files."""

    def put(text: str, **more: str) -> None:
        write({"features/environment.py": ENVIRONMENT, "features/steps/steps.py": STEPS, "conftest.py": CONFTEST})
        write({"features/f.feature": text})
        write({f"features/{name.replace('__', '/')}.py": content for name, content in more.items()})

    return put


def test_fixtures_are_made_when_they_are_asked_for(
    pytester: pytest.Pytester, write: Write, folder: Callable[..., None], told: Told
) -> None:
    more = """
        from behave import given
        @given("a value")
        def step(context):
            assert "value" not in context
            assert context.value == "a value"
            assert "value" in context
        @given("no value")
        def step(context): assert "value" not in context
        @given("all of them")
        def step(context): assert (context.broad, context.broadest) == ("broad", "broadest")
        @given("only the broadest")
        def step(context): assert "broadest" in context and "broad" not in context
        """
    two = "  Scenario: Two\n    Given no value\n    And all of them\n"
    folder(feature("Given a value") + two, steps__more=more)
    write({"features/g.feature": feature("Given only the broadest", name="Three")})
    pytester.runpytest_inprocess().assert_outcomes(passed=3)
    assert told() == [
        "before_all", "before_feature F",
        "before_scenario One", "value is made", "after_scenario One passed a value", "value is torn down",
        "before_scenario Two", "broad is made", "after_scenario Two passed False",
        "after_feature F", "broad is torn down", "before_feature F",
        "before_scenario Three", "after_scenario Three passed False",
        "after_feature F", "after_all", "cleanup of all", "broadest is torn down",
    ]  # fmt: skip


def test_fixtures_in_hooks(pytester: pytest.Pytester, folder: Callable[..., None], told: Told) -> None:
    folder(feature("Given nothing", tags="@asks"))
    pytester.runpytest_inprocess().assert_outcomes(passed=1)
    assert "value a value" in told()


@pytest.mark.parametrize(
    ("hook", "name", "works"),
    [
        ("before_all(context)", "broadest", True),
        ("before_all(context)", "broad", False),
        ("before_all(context)", "value", False),
        ("before_feature(context, feature)", "broad", True),
        ("before_feature(context, feature)", "value", False),
        ("before_scenario(context, scenario)", "value", True),
    ],
)
def test_a_fixture_has_to_outlast_what_the_hook_prepares(
    pytester: pytest.Pytester, folder: Callable[..., None], hook: str, name: str, *, works: bool
) -> None:
    folder(feature("Given nothing"), environment=f"def {hook}: assert context.{name}\n")
    result = pytester.runpytest_inprocess()
    if works:
        result.assert_outcomes(passed=1)
    else:
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines([f"*context.{name} is a fixture of scope *, which does not last for a *"])


def test_only_what_is_offered_is_found(pytester: pytest.Pytester, folder: Callable[..., None], told: Told) -> None:
    more = """
        from behave import given
        @given("no {name}")
        def step(context, name):
            assert not hasattr(context, name)
            assert getattr(context, name, None) is None
            assert context.use_or_assign_param(name, 7) == 7
        @given("tmp_path")
        def step(context): assert context.tmp_path.is_dir()
        """
    text = feature("Given no tmp_path", "And no cache", "And no request")
    text += "  @fixture.tmp_path @fixture.value @fixture.unknown\n  Scenario: Two\n    Given tmp_path\n"
    folder(text, steps__more=more)
    pytester.runpytest_inprocess("-pno:randomly", "--strict-markers").assert_outcomes(passed=2)
    # A tag has the fixture made before the hooks, whether anybody uses it or not.
    assert told()[4:6] == ["value is made", "before_scenario Two"]


def test_features_that_know_nothing_of_machines_find_none(
    pytester: pytest.Pytester, folder: Callable[..., None]
) -> None:
    more = """
        import os
        @given("no machine")
        def step(context):
            assert not hasattr(context, "ssh")
            assert getattr(context, "image", 3) == 3
            assert context.config.base_dir == os.path.dirname(os.path.dirname(__file__))
        @given("a machine")
        def step(context): context.guest
        """
    folder(feature("Given no machine", "And a machine"), steps__more=more)
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [">   And a machine", "*this test needs a machine, and pytest was not told what to boot*"]
    )


def test_what_a_user_sets_hides_a_fixture(pytester: pytest.Pytester, folder: Callable[..., None], told: Told) -> None:
    more = "@given('mine')\ndef step(context):\n    context.value = 1\n    assert context.value == 1\n"
    folder(feature("Given mine"), steps__more=more)
    pytester.runpytest_inprocess("-Werror").assert_outcomes(passed=1)
    assert "value is made" not in told()


def test_masking_is_warned_of(pytester: pytest.Pytester, folder: Callable[..., None]) -> None:
    folder(feature("Given mine"), steps__more="@given('mine')\ndef step(context): context.scenario = 1\n")
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=1, warnings=0)
    folder(feature("Given mine"), steps__more="@given('mine')\ndef step(context): context.feature = 1\n")
    result = pytester.runpytest_inprocess("-Wdefault")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*ContextMaskWarning: user code is masking context attribute 'feature'*"])
    pytester.runpytest_inprocess("-Werror").assert_outcomes(failed=1)


@pytest.mark.parametrize("hook", ["before_all(context)", "before_feature(context, feature)"])
def test_a_hook_that_failed_fails_every_scenario_that_stands_on_it(
    pytester: pytest.Pytester, folder: Callable[..., None], told: Told, hook: str
) -> None:
    name = hook.partition("(")[0]
    broken = ENVIRONMENT.replace(f"def {hook}:\n", f"def {hook}:\n    tell('{name} fails')\n    {{}}['missing']\n")
    two = "  Scenario: Two\n    Given nothing\n"
    folder(feature("Given nothing") + two, environment=broken)
    result = pytester.runpytest_inprocess("-rE")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines([">*{}?'missing']", "ERROR *::One - KeyError: 'missing'", "ERROR *::Two - KeyError: *"])
    assert "site-packages" not in result.stdout.str()
    assert told().count(f"{name} fails") == 1
    assert told()[-1] == "after_all" if "all" in name else "cleanup of all"


def test_hooks_after_are_run_whatever_fails(pytester: pytest.Pytester, folder: Callable[..., None], told: Told) -> None:
    broken = (
        ENVIRONMENT
        + "\ndef after_scenario(context, scenario):\n    tell('after')\n    raise ValueError(scenario.name)\n"
    )
    two = "  Scenario: Two\n    Given nothing\n"
    folder(feature("When the test is failed") + two, environment=broken)
    result = pytester.runpytest_inprocess("-rA")
    result.assert_outcomes(passed=1, failed=1, errors=2)
    assert told() == [
        "before_all", "before_feature F", "before_scenario One", "after", "before_scenario Two", "after",
        "after_feature F", "after_all", "cleanup of all",
    ]  # fmt: skip


def test_output_of_hooks_after_is_captured(pytester: pytest.Pytester, folder: Callable[..., None]) -> None:
    folder(feature("Given nothing"), environment="def after_all(context):\n    print('said at the end')\n    1 / 0\n")
    result = pytester.runpytest_inprocess("-q")
    result.assert_outcomes(passed=1, errors=1)
    captured = result.stdout.str().partition("Captured stdout teardown")[2]
    assert "said at the end" in captured
    assert (
        "said at the end" not in result.stdout.str().partition("Captured stdout teardown")[0].partition("=== ERRORS")[0]
    )


def test_pytests_own_ways_to_end_a_test(pytester: pytest.Pytester, folder: Callable[..., None], told: Told) -> None:
    text = feature("When the test is skipped", "Given unknown")
    text += "  Scenario: Two\n    When the test is failed\n    Given nothing\n"
    folder(text)
    result = pytester.runpytest_inprocess("-rs")
    result.assert_outcomes(skipped=1, failed=1)
    result.stdout.fnmatch_lines([">   When the test is failed", "-   Given nothing", "SKIPPED*as pytest does it"])
    assert "after_scenario One skipped False" in told()
    assert "after_scenario Two failed False" in told()


@pytest.mark.parametrize("step", ["When the run is interrupted", "When a step within interrupts the run"])
def test_ctrl_c(pytester: pytest.Pytester, folder: Callable[..., None], told: Told, step: str) -> None:
    folder(feature(step) + "  Scenario: Two\n    Given nothing\n")
    result = pytester.runpytest_inprocess(no_reraise_ctrlc=True)
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*KeyboardInterrupt*"])
    assert told() == [
        "before_all", "before_feature F", "before_scenario One",
        "after_scenario One error False", "after_feature F", "after_all", "cleanup of all",
    ]  # fmt: skip


@pytest.mark.parametrize("hook", ["before_step(context, step)", "before_scenario(context, scenario)"])
def test_ctrl_c_in_a_hook(pytester: pytest.Pytester, folder: Callable[..., None], told: Told, hook: str) -> None:
    folder(feature("Given nothing"), environment=f"{ENVIRONMENT}\ndef {hook}: raise KeyboardInterrupt\n")
    assert pytester.runpytest_inprocess(no_reraise_ctrlc=True).ret == 2
    assert told()[-2:] == ["after_all", "cleanup of all"]


def test_a_signal_ends_a_step(pytester: pytest.Pytester, folder: Callable[..., None], told: Told) -> None:
    # What runs in the background of a script would ignore the signal.
    hooks = """
        import signal
        def before_step(context, step):
            signal.signal(signal.SIGINT, signal.default_int_handler)
            tell("step")
        """
    folder(feature("When 60000 ms pass"), environment=ENVIRONMENT + textwrap.dedent(hooks))
    command = [sys.executable, "-m", "pytest", "-q"]
    with subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: "step" in told(), Deadline.after(60), what="the step")
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 2
    assert "KeyboardInterrupt" in output
    assert told()[-2:] == ["after_all", "cleanup of all"]


def test_the_first_failure_may_end_the_run(pytester: pytest.Pytester, folder: Callable[..., None], told: Told) -> None:
    folder(feature("When the test is failed") + "  Scenario: Two\n    Given nothing\n")
    pytester.runpytest_inprocess("-x").assert_outcomes(failed=1)
    assert told()[-3:] == ["after_feature F", "after_all", "cleanup of all"]


def test_a_step_may_end_the_run(pytester: pytest.Pytester, folder: Callable[..., None], told: Told) -> None:
    folder(feature("When the run is to end") + "  Scenario: Two\n    Given nothing\n")
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=1)
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*a hook or a step has aborted the run*"])
    assert told()[-3:] == ["after_feature F", "after_all", "cleanup of all"]


def test_features_and_other_tests_take_turns(
    pytester: pytest.Pytester, folder: Callable[..., None], write: Write, told: Told
) -> None:
    noisy = 'tell("before_all")\n    context.config.setup_logging()\n'
    folder(feature("Given nothing"), environment=ENVIRONMENT.replace('tell("before_all")\n', noisy))
    between = "import logging\ndef test_it(): assert logging.getLogger().level == logging.WARNING\n"
    order = "def pytest_collection_modifyitems(items): items.sort(key=lambda item: item.path.name)\n"
    write({"features/test_between.py": between, "conftest.py": f"{CONFTEST}\n{order}"})
    write({"features/z.feature": feature("Given nothing", name="Last")})
    pytester.runpytest_inprocess().assert_outcomes(passed=3)
    assert told().count("before_all") == 2
    assert told().count("after_all") == 2


def test_what_features_change_for_the_process_is_set_back(
    pytester: pytest.Pytester, folder: Callable[..., None], write: Write
) -> None:
    text = "from behave.model import Scenario\ndef before_all(context): Scenario.continue_after_failed_step = True\n"
    folder(feature("When the test is failed", "Given nothing"), environment=text)
    write({"other/steps/steps.py": STEPS, "other/f.feature": feature("When the test is failed", "Given nothing")})
    result = pytester.runpytest_inprocess("-pno:randomly")
    text = result.stdout.str()
    assert "    Given nothing" in text.partition("other/f.feature:3")[0]
    assert "-   Given nothing" in text.partition("other/f.feature:3")[2]


def test_captured_output_and_log(pytester: pytest.Pytester, folder: Callable[..., None]) -> None:
    more = """
        import logging, sys
        from behave import given
        @given("output")
        def step(context):
            print("printed")
            print("complained", file=sys.stderr)
            logging.getLogger("steps").info("logged")
        @given("what was captured")
        def step(context):
            assert "printed" in context.captured.stdout
            assert "complained" in context.captured.stderr
            assert "logged" in context.captured.log
            assert 0
        """
    folder(feature("Given output", "Given what was captured"), steps__more=more)
    result = pytester.runpytest_inprocess()
    result.stdout.fnmatch_lines(
        ["*Captured stdout call*", "printed", "*Captured stderr call*", "complained", "*Captured log call*", "*logged"]
    )
    assert "printed" in pytester.runpytest_inprocess("-s").stdout.str()


def test_a_debugger_stands_in_the_step(pytester: pytest.Pytester, folder: Callable[..., None]) -> None:
    step = "@given('broken')\ndef step(context):\n    here = 1\n    assert here == 2\n"
    folder(feature("Given broken"), steps__more=step)
    result = pytester.run(sys.executable, "-m", "pytest", "--pdb", stdin=b"p here + 40\nq\n")
    result.stdout.fnmatch_lines(["-> assert here == 2", "*41", "*1 failed*"])


def test_durations_of_steps(pytester: pytest.Pytester, folder: Callable[..., None]) -> None:
    folder(feature("When 200 ms pass", "When 20 ms pass", "Given nothing"))
    for workers in ([], ["-n1"]):
        result = pytester.runpytest_inprocess("--durations=2", "--durations-min=0.02", *workers)
        result.stdout.fnmatch_lines(
            ["=* slowest 2 steps =*", "?.??s When 200 ms pass  (*f.feature::One)", "?.??s When 20 ms pass  *"]
        )
        assert "Given nothing" not in result.stdout.str()
    assert "slowest" not in pytester.runpytest_inprocess().stdout.str()


@pytest.mark.parametrize("distribution", ["load", "loadscope", "loadfile", "loadgroup", "worksteal", "each"])
def test_every_distribution(
    pytester: pytest.Pytester, folder: Callable[..., None], write: Write, distribution: str
) -> None:
    rows = "".join(f"      | {n} |\n" for n in range(4))
    outline = f"  Scenario Outline: O <n>\n    Given nothing\n    Examples:\n      | n |\n{rows}"
    rule = "  Rule: R\n    @xdist_group.a\n    Scenario: In it\n      When the test is failed\n"
    folder(feature("Given nothing") + outline + rule)
    write({"features/g.feature": feature("Given nothing", "And unknown")})
    result = pytester.runpytest_inprocess("-n2", f"--dist={distribution}")
    times = 2 if distribution == "each" else 1
    result.assert_outcomes(passed=5 * times, failed=2 * times)
