"""Several folders of features in one run: none sees the steps, types, modules or settings of another."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

Write = Callable[[Mapping[str, str]], None]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def feature(*steps: str, name: str = "Only", tags: str = "") -> str:
    lines = "".join(f"    {step}\n" for step in steps)
    return f"Feature: F\n  {tags}\n  Scenario: {name}\n{lines}"


def both(step_file: str, *steps: str) -> dict[str, str]:
    """Two suites with the same words and other meanings: WORD is the suite's name."""
    files = {}
    for suite in ("one", "two"):
        files[f"{suite}/steps/steps.py"] = step_file.replace("WORD", suite)
        files[f"{suite}/f.feature"] = feature(*(step.replace("WORD", suite) for step in steps))
    return files


def test_each_suite_has_its_own_steps(pytester: pytest.Pytester, write: Write) -> None:
    text = "from behave import given\n@given('a step')\ndef step(context): assert context.suite == 'WORD'\n"
    hook = "def before_all(context): context.suite = 'WORD'\n"
    write(both(text, "Given a step"))
    write({f"{suite}/environment.py": hook.replace("WORD", suite) for suite in ("one", "two")})
    write({"three/steps/steps.py": "", "three/f.feature": feature("Given a step")})
    result = pytester.runpytest_inprocess("-rf")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["FAILED three/f.feature::Only - undefined step: Given a step"])


def test_each_suite_has_its_own_types(pytester: pytest.Pytester, write: Write) -> None:
    text = """
        from behave import given, register_type
        from behave.cucumber_expression import define_parameter_type_with, use_step_matcher_for_cucumber_expressions
        def convert(text): return f"WORD {text}"
        convert.pattern = r"WORD-.*"
        register_type(Thing=convert)
        @given("a thing {thing:Thing}")
        def step(context, thing): assert thing == "WORD WORD-1"
        use_step_matcher_for_cucumber_expressions()
        define_parameter_type_with(name="thing", regexp="[a-z]+-1", type=str, transformer=lambda text: f"WORD {text}")
        @given("another {thing}")
        def step(context, thing): assert thing == "WORD x-1"
        """
    write(both(text, "Given a thing WORD-1", "Given another x-1"))
    write({"zero/f.feature": feature("Given x"), "zzz/f.feature": feature("Given x")})
    write({f"{suite}/steps/s.py": "@given('{x:Thing}')\ndef step(context, x): pass\n" for suite in ("zero", "zzz")})
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines(
        ["*zero/steps/s.py cannot be loaded: *Thing*", "*zzz/steps/s.py cannot be loaded: *Thing*"]
    )


def test_a_matcher_holds_for_its_file(pytester: pytest.Pytester, write: Write) -> None:
    regex = (
        "from behave import given, use_step_matcher\nuse_step_matcher('re')\n@given('a+b')\ndef step(context): pass\n"
    )
    parse = "from behave import given\n@given('(c) {n:d}')\ndef step(context, n): assert n == 1\n"
    write({"one/steps/a.py": regex, "one/steps/b.py": parse, "one/f.feature": feature("Given aaab", "Given (c) 1")})
    write({"two/steps/b.py": parse, "two/f.feature": feature("Given (c) 1")})
    pytester.runpytest_inprocess().assert_outcomes(passed=2)


def test_modules_beside_the_steps_do_not_meet(pytester: pytest.Pytester, write: Write) -> None:
    text = """
        import helpers
        from behave import given
        @given("a helper")
        def step(context):
            import late
            assert (helpers.name, late.name) == ("WORD", "late WORD")
        @given("the same helper")
        def step(context):
            import late, helpers as again
            assert again is helpers
        """
    write(both(text, "Given a helper", "Given the same helper"))
    for suite in ("one", "two"):
        write({f"{suite}/helpers.py": f"name = {suite!r}", f"{suite}/late.py": f"name = 'late {suite}'"})
    # Also when they take turns.
    write(
        {
            "one/g.feature": feature("Given a helper"),
            "conftest.py": "def pytest_collection_modifyitems(items): items[:] = items[::2] + items[1::2]",
        }
    )
    write(
        {
            "two/g.feature": feature("Given a helper"),
            "test_after.py": "import sys\ndef test_it(): assert not {'helpers', 'late'} & set(sys.modules)",
        }
    )
    pytester.runpytest_inprocess().assert_outcomes(passed=5)


def test_a_project_elsewhere_finds_its_own_modules(pytester: pytest.Pytester, write: Write) -> None:
    write(
        {
            "elsewhere/project.py": "NAME = 'project'\n",
            "elsewhere/features/steps/s.py": "import project\n@given('it')\ndef step(context): assert project.NAME\n",
            "elsewhere/features/f.feature": feature("Given it"),
            "test_after.py": "import sys\ndef test_it(): assert not [p for p in sys.path if p.endswith('elsewhere')]\n",
        }
    )
    pytester.runpytest_inprocess("elsewhere/features", "test_after.py").assert_outcomes(passed=2)


def test_a_library_of_steps_serves_each_suite(
    pytester: pytest.Pytester, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        {
            "library/things/__init__.py": "",
            "library/things/inner.py": "from behave import given\n@given('a thing')\ndef step(context): pass\n",
            "library/things/steps.py": "from things.inner import *\nfrom things.plain import Plain\n",
            "library/things/plain.py": "class Plain: pass\n",
        }
    )
    monkeypatch.syspath_prepend(pytester.path / "library")
    text = "from things.steps import *\n"
    write(both(text, "Given a thing"))
    pytester.runpytest_inprocess("-pno:cacheprovider").assert_outcomes(passed=2)


def test_a_conftest_may_bring_steps_for_all(pytester: pytest.Pytester, write: Write) -> None:
    write(both("", "Given a common step"))
    write({"conftest.py": "from behave import given\n@given('a common step')\ndef step(context): pass\n"})
    pytester.runpytest_subprocess().assert_outcomes(passed=2)


def test_a_broken_suite_breaks_nobody_else(pytester: pytest.Pytester, write: Write) -> None:
    write(both("from behave import given\n@given('a step')\ndef step(context): pass\n", "Given a step"))
    write({"one/steps/broken.py": "import nowhere_at_all\n", "one/g.feature": feature("Given a step")})
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=1, errors=2)
    result.stdout.fnmatch_lines(
        ["*one/steps/broken.py cannot be loaded: ModuleNotFoundError: No module named 'nowhere_at_all'*"]
    )
    assert "site-packages/behave" not in result.stdout.str()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("syntax error", "*steps.py cannot be loaded: SyntaxError: invalid syntax*"),
        ("import sys\nsys.exit(3)", "*steps.py cannot be loaded: SystemExit: 3*"),
        (
            "@given('a {x}')\ndef one(context, x): pass\n@given('a b')\ndef two(context): pass\n",
            "*steps.py cannot be loaded: AmbiguousStep: @given('a b') has already been defined in*",
        ),
        ("from behave import given\n@given('a {x:Unknown}')\ndef one(context, x): pass\n", "*cannot be loaded: *"),
        (
            "use_step_matcher('re')\n@given('a (')\ndef one(context): pass\n",
            "*steps.py cannot be loaded: *unterminated subpattern*",
        ),
    ],
    ids=["syntax", "exit", "ambiguous", "type", "regex"],
)
def test_step_files_that_cannot_be_used(pytester: pytest.Pytester, write: Write, text: str, told: str) -> None:
    write({"features/steps/steps.py": text, "features/f.feature": feature("Given a b")})
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([told])


def test_broken_environment(pytester: pytest.Pytester, write: Write) -> None:
    write({"features/environment.py": "from behave import nothing\n", "features/f.feature": feature("Given a b")})
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*environment.py cannot be loaded: ImportError: cannot import name 'nothing'*"])


@pytest.mark.parametrize(("arguments", "explained"), [([], True), (["--assert=plain"], False)])
def test_assertions_explain_themselves(
    pytester: pytest.Pytester, write: Write, arguments: list[str], *, explained: bool
) -> None:
    step = "@given('a step')\ndef step(context):\n    one = {'a': 1}\n    assert one == {'a': 2}\n"
    hook = """
        def before_scenario(context, scenario):
            if scenario.name == "hook":
                assert len(scenario.name) == 0
        """
    write({"features/steps/steps.py": step, "features/environment.py": hook})
    write({"features/f.feature": feature("Given a step"), "features/g.feature": feature("Given a step", name="hook")})
    result = pytester.runpytest_inprocess(*arguments)
    result.assert_outcomes(failed=1, errors=1)
    text = result.stdout.str()
    assert ("E       AssertionError: assert {'a': 1} == {'a': 2}" in text) is explained
    assert ("assert 4 == 0" in text) is explained


CHECKED = """
from behave import given
@given("{a} is {b}")
def step_general(context, a, b): pass
@given("something else")
def step_else(context): pass
"""


def test_steps_are_checked(pytester: pytest.Pytester, write: Write) -> None:
    narrow = "from behave import given\n@given('grass is {colour}')\ndef step_grass(context, colour): pass\n"
    write({"features/steps/a.py": narrow, "features/steps/b.py": CHECKED})
    write({"features/f.feature": feature("Given grass is green", "And nobody knows", "When nobody knows")})
    write(
        {"test_it.py": "def test_it(): raise KeyError\n", "other/steps/s.py": "", "other/f.feature": feature("Given x")}
    )
    result = pytester.runpytest_inprocess("--check-steps")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "=* steps of features =*",
            "ambiguous: features/f.feature:4: Given grass is green (the first is used: *a.py:2 and *b.py:3)",
            "undefined: features/f.feature:5: And nobody knows",
            "undefined: features/f.feature:6: When nobody knows",
            "unused: features/steps/b.py:3: @given('{a} is {b}')",
            "unused: features/steps/b.py:5: @given('something else')",
            "@given('nobody knows')",
            "@when('nobody knows')",
            "=* steps of other =*",
            "undefined: other/f.feature:4: Given x",
            "=* no tests ran in *",
        ]
    )


def test_steps_that_are_in_order(pytester: pytest.Pytester, write: Write) -> None:
    write({"features/steps/a.py": CHECKED, "features/f.feature": feature("Given a is b", "And something else")})
    result = pytester.runpytest_inprocess("--check-steps")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["every step has one definition, and every definition is used"])
    result = pytester.runpytest_inprocess("--check-steps", "-n2")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--check-steps and -n do not go together"])
    write({"features/steps/b.py": "import nowhere_at_all"})
    result = pytester.runpytest_inprocess("--check-steps")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*b.py cannot be loaded: ModuleNotFoundError: *"])


BEHAVE_STEPS = "from behave import given\n@given('a')\ndef step(context): pass\n"
BDD_STEPS = "from pytest_bdd import given\n@given('a')\ndef step(): pass\n"


@pytest.mark.parametrize(
    ("files", "mode", "collected"),
    [
        ({"features/steps/s.py": BEHAVE_STEPS}, "auto", 1),
        ({"features/steps/s.py": ""}, "auto", 1),
        ({"steps/s.py": BEHAVE_STEPS}, "auto", 1),
        ({"features/environment.py": "def before_all(context): pass"}, "auto", 1),
        ({"environment.py": "DEBUG = True\n"}, "auto", 0),
        ({"features/steps/s.py": BDD_STEPS}, "auto", 0),
        ({"features/steps/s.py": BDD_STEPS, "environment.py": "import behave"}, "auto", 0),
        ({}, "auto", 0),
        ({}, "on", 1),
        ({"features/steps/s.py": BEHAVE_STEPS}, "off", 0),
    ],
)
def test_which_files_are_features(
    pytester: pytest.Pytester, write: Write, files: dict[str, str], mode: str, collected: int
) -> None:
    write({**files, "features/f.feature": feature("Given a"), "pytest.ini": f"[pytest]\nbootc_features = {mode}\n"})
    result = pytester.runpytest_inprocess("--collect-only", "-q")
    assert sum("::" in line for line in result.outlines) == collected


def test_a_file_that_is_named_is_a_feature(pytester: pytest.Pytester, write: Write) -> None:
    write({"features/f.feature": feature("Given a")})
    result = pytester.runpytest_inprocess("features/f.feature")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["undefined step: Given a"])
    assert pytester.runpytest_inprocess("features/f.feature", "--features=off").ret == 4
    assert pytester.runpytest_inprocess("--features=perhaps").ret == 4


SETTINGS = {
    "behave.ini": "[behave]\ndefault_tags = not @out\n[behave.userdata]\nplanet = Mars\nother = 1\n",
    "setup.cfg": "[behave]\ndefault_tags = not @out\n[behave.userdata]\nplanet = Mars\nother = 1\n",
    "pyproject.toml": '[tool.behave]\ndefault_tags = ["not @out"]\n[tool.behave.userdata]\nplanet = "M"\nother = 1\n',
}


@pytest.mark.parametrize("name", SETTINGS)
def test_behaves_settings_hold(pytester: pytest.Pytester, write: Write, name: str) -> None:
    step = """
        from behave import given
        @given("userdata")
        def step(context):
            userdata = context.config.userdata
            assert (userdata["planet"], userdata.getint("other"), userdata.getbool("flag")) == ("Venus", 1, True)
        """
    folder = "project/features"
    write({f"project/{name}": SETTINGS[name], f"{folder}/steps/s.py": step})
    write({f"{folder}/f.feature": feature("Given userdata"), f"{folder}/g.feature": feature("Given x", tags="@out")})
    result = pytester.runpytest_inprocess("--userdata=planet=Venus", "--userdata=flag", "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*g.feature:3: left out by behave's settings (tags or names)"])


def test_settings_that_behave_refuses(pytester: pytest.Pytester, write: Write) -> None:
    write(
        {
            "behave.ini": "[behave]\ndefault_tags = not (\n",
            "features/steps/s.py": "",
            "features/f.feature": feature("Given a"),
        }
    )
    result = pytester.runpytest_inprocess()
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*features: behave refuses its settings*"])
    assert "Traceback" not in result.stdout.str()
    result = pytester.runpytest_inprocess("--userdata==x")
    assert result.ret == 4


def test_stages_and_nested_steps(pytester: pytest.Pytester, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEHAVE_STAGE", "product")
    write({"behave.ini": "[behave]\nuse_nested_step_modules = true\n"})
    write({"features/product_steps/inner/s.py": BEHAVE_STEPS, "features/f.feature": feature("Given a")})
    write({"features/product_environment.py": "def before_all(context): print('product')\n"})
    result = pytester.runpytest_inprocess("-rP")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["product"])


def test_behave_is_not_imported_for_nothing(pytester: pytest.Pytester, write: Write) -> None:
    write({"test_it.py": "import sys\ndef test_it(): assert not [name for name in sys.modules if 'behave' in name]\n"})
    write({"tests/features/steps/s.py": BDD_STEPS, "tests/features/f.feature": feature("Given a")})
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
