"""What pytest's private names do for us, in each version of pytest that this is run with."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_bootc import compat


class Twice:
    """Runs each test twice, the second time after its failed fixtures were forgotten, and shows the second try.

    The last test is run once: at its end everything is torn down anyway.
    """

    def __init__(self, *, forget: bool = True) -> None:
        self.tries: list[list[tuple[str, str]]] = []
        self.reports: list[pytest.TestReport] = []
        self._forget = forget

    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        for last in (False, True) if nextitem is not None else (True,):
            reports = compat.run_phases(item, nextitem)
            self.tries.append([(str(report.when), report.outcome) for report in reports])
            if last:
                for report in reports:
                    item.ihook.pytest_runtest_logreport(report=report)
            elif self._forget:
                compat.forget_failed_fixtures(item)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports.append(report)


PASSED = [("setup", "passed"), ("call", "passed"), ("teardown", "passed")]
FAILED = [("setup", "passed"), ("call", "failed"), ("teardown", "passed")]
NO_SETUP = [("setup", "failed"), ("teardown", "passed")]


def run_twice(pytester: pytest.Pytester, module: str, plugin: Twice | None = None) -> Twice:
    plugin = plugin or Twice()
    # "EVENTS" in the module is where it tells what happens; one list for all tries.
    pytester.makepyfile(f"EVENTS = []\nimport pytest\n{textwrap.dedent(module)}\ndef test_last(): pass\n")
    pytester.inline_run("--doctest-glob=*.txt", plugins=[plugin])
    assert plugin.tries.pop() == PASSED
    del plugin.reports[-3:]
    return plugin


def test_a_test_is_run_twice_and_shown_once(pytester: pytest.Pytester) -> None:
    twice = run_twice(
        pytester,
        """
        @pytest.fixture
        def each():
            EVENTS.append("up")
            yield len(EVENTS)
            EVENTS.append("down")

        @pytest.fixture(scope="session")
        def once():
            EVENTS.append("once")

        def test_it(once, each):
            if each == 2:
                assert EVENTS == ["once", "up"]
                assert False, "the first try"
            assert EVENTS == ["once", "up", "down", "up"]
        """,
    )
    assert twice.tries == [FAILED, PASSED]
    assert [(report.when, report.outcome) for report in twice.reports] == PASSED


@pytest.mark.parametrize("forget", [True, False])
@pytest.mark.parametrize("scope", ["function", "class", "module", "package", "session"])
def test_a_fixture_that_failed_is_set_up_again(pytester: pytest.Pytester, scope: str, *, forget: bool) -> None:
    twice = run_twice(
        pytester,
        f"""
        @pytest.fixture(scope="{scope}")
        def base():
            EVENTS.append("base")
            return len(EVENTS)

        @pytest.fixture(scope="{scope}")
        def broken(base):
            EVENTS.append("broken")
            if EVENTS.count("broken") == 1:
                raise OSError("no bus")
            yield base
            EVENTS.append("down")

        @pytest.fixture(scope="{scope}")
        def above(broken):
            return broken

        def test_it(above):
            pass
        """,
        Twice(forget=forget),
    )
    # Of a fixture that lives on beyond the test, pytest remembers the failure.
    lives_on = scope in ("module", "package", "session")
    assert twice.tries[0] == NO_SETUP
    assert twice.tries[1] == (PASSED if forget or not lives_on else NO_SETUP)


def test_fixtures_that_did_not_fail_are_kept(pytester: pytest.Pytester) -> None:
    twice = run_twice(
        pytester,
        """
        @pytest.fixture(scope="session")
        def machine():
            EVENTS.append("machine up")
            yield "machine"
            EVENTS.append("machine down")

        @pytest.fixture(scope="session")
        def login(machine):
            EVENTS.append("login")
            if EVENTS.count("login") == 1:
                raise OSError("no sshd")
            return machine

        def test_first(login):
            assert login == "machine"
            assert EVENTS == ["machine up", "login", "login"]

        def test_second(login):
            assert EVENTS == ["machine up", "login", "login"]
        """,
    )
    assert twice.tries == [NO_SETUP, PASSED, PASSED, PASSED]


def test_a_fixture_that_failed_after_others_had_asked_for_their_end(pytester: pytest.Pytester) -> None:
    twice = run_twice(
        pytester,
        """
        @pytest.fixture(scope="session")
        def broken(request):
            EVENTS.append("up")
            request.addfinalizer(lambda: EVENTS.append("down"))
            if EVENTS == ["up"]:
                pytest.fail("not yet")

        def test_it(broken):
            assert EVENTS == ["up", "down", "up"]
        """,
    )
    assert twice.tries == [NO_SETUP, PASSED]


def test_fixtures_that_a_test_asks_for_itself(pytester: pytest.Pytester) -> None:
    twice = run_twice(
        pytester,
        """
        @pytest.fixture(scope="session")
        def broken():
            EVENTS.append("up")
            if len(EVENTS) == 1:
                raise OSError("no bus")

        def test_it(request):
            request.getfixturevalue("broken")
        """,
    )
    assert twice.tries == [FAILED, PASSED]


def test_a_skip_in_a_fixture_is_asked_again(pytester: pytest.Pytester) -> None:
    twice = run_twice(
        pytester,
        """
        @pytest.fixture(scope="session")
        def choosy():
            EVENTS.append("up")
            if len(EVENTS) == 1:
                pytest.skip("not yet")

        def test_it(choosy):
            pass
        """,
    )
    assert twice.tries == [[("setup", "skipped"), ("teardown", "passed")], PASSED]


def test_parameters_stay_with_their_test(pytester: pytest.Pytester) -> None:
    twice = run_twice(
        pytester,
        """
        @pytest.fixture(scope="session", params=["one", "two"])
        def image(request):
            EVENTS.append(request.param)
            if EVENTS.count(request.param) == 1:
                raise OSError("no machine")
            return request.param

        def test_it(image, request):
            assert image == request.node.callspec.params["image"]
        """,
    )
    assert twice.tries == [NO_SETUP, PASSED] * 2
    assert [report.nodeid.partition("[")[2] for report in twice.reports if report.when == "call"] == ["one]", "two]"]


def test_tests_of_other_kinds(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import pytest

        class Page(pytest.Item):
            def runtest(self):
                pass

        class Book(pytest.File):
            def collect(self):
                yield Page.from_parent(self, name="page")

        def pytest_collect_file(file_path, parent):
            if file_path.suffix == ".book":
                return Book.from_parent(parent, path=file_path)
        """
    )
    (pytester.path / "a.book").touch()
    (pytester.path / "a.txt").write_text(">>> 1 + 1\n2\n")
    twice = run_twice(
        pytester,
        """
        import unittest

        class TestCase(unittest.TestCase):
            def setUp(self):
                EVENTS.append("up")

            def test_it(self):
                assert len(EVENTS) == 2
        """,
    )
    assert {report.nodeid for report in twice.reports} == {
        "a.book::page",
        "a.txt::a.txt",
        "test_tests_of_other_kinds.py::TestCase::test_it",
    }
    assert twice.tries == [PASSED, PASSED, PASSED, PASSED, FAILED, PASSED]


class Asks:
    """Asks of each test whether another plugin runs it."""

    def __init__(self) -> None:
        self.answers: dict[str, bool] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.answers = {item.name: compat.is_run_by_others(item) for item in session.items}


TESTS = """
    import pytest
    def test_it(): pass
    @pytest.mark.flaky
    def test_marked(): pass
"""


def asked(pytester: pytest.Pytester, *plugins: object, module: str = TESTS) -> dict[str, bool]:
    pytester.makepyfile(module)
    asks = Asks()
    pytester.inline_run("-Wignore::pytest.PytestUnknownMarkWarning", plugins=[asks, *plugins])
    return asks.answers


class Wrapper:
    """Does something before and after each test, and leaves running it to others."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> object:
        return (yield)


class OldWrapper:
    """The same, as it was written before."""

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self) -> object:
        yield


class Runner:
    """Runs tests itself, or seems to."""

    def pytest_runtest_protocol(self) -> None:
        return None


def test_pytest_itself_and_wrappers_are_no_others(pytester: pytest.Pytester) -> None:
    assert asked(pytester, Wrapper(), OldWrapper()) == {"test_it": False, "test_marked": False}


def test_another_plugin_runs_tests(pytester: pytest.Pytester) -> None:
    assert asked(pytester, Runner()) == {"test_it": True, "test_marked": True}


class Named:
    """Registers a plugin under the name of pytest-rerunfailures, with its option."""

    def __init__(self, reruns: int | None) -> None:
        self.reruns = reruns

    def pytest_configure(self, config: pytest.Config) -> None:
        config.option.reruns = self.reruns
        config.pluginmanager.register(Runner(), "rerunfailures")


@pytest.mark.parametrize(("reruns", "by_others"), [(None, False), (0, False), (2, True)])
def test_pytest_rerunfailures_runs_what_it_was_asked_to(
    pytester: pytest.Pytester, reruns: int | None, *, by_others: bool
) -> None:
    assert asked(pytester, Named(reruns)) == {"test_it": by_others, "test_marked": True}


def test_a_conftest_speaks_for_its_own_folder(pytester: pytest.Pytester) -> None:
    for name, conftest in (("one", "def pytest_runtest_protocol(item): pass"), ("two", "")):
        folder = Path(pytester.mkdir(name))
        (folder / "conftest.py").write_text(conftest)
        (folder / f"test_{name}.py").write_text(f"def test_{name}(): pass")
    assert asked(pytester) == {"test_one": True, "test_two": False, "test_it": False, "test_marked": False}


def test_our_own_runner_is_no_other(judge: Callable[..., pytest.RunResult], pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        from pytest_bootc import compat

        def pytest_collection_finish(session):
            told = [compat.is_run_by_others(item) for item in session.items]
            hooks = session.config.hook.pytest_runtest_protocol.get_hookimpls()
            ours = [hook.plugin_name for hook in hooks if hook.plugin_name.startswith("pytest_bootc")]
            print(f"\\nrun by others: {told}, by us: {ours}")
        """
    )
    pytester.makepyfile("def test_it(vm): pass")
    judge("-s").stdout.fnmatch_lines(["run by others: [[]False], by us: [[]'pytest_bootc.item_hooks']"])
