"""The shipped suites: found from anywhere, the same from wheel and checkout, whatever the user's own settings."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

Judge = Callable[..., pytest.RunResult]
Install = Callable[..., Path]

WORD = """
import pytest

@pytest.fixture
def word():
    return {word!r}
"""
EVERYWHERE = """
@pytest.fixture(autouse=True)
def everywhere(request):
    request.node.user_properties.append(("from", "server"))
"""
SERVER_TESTS = """
def test_it(vm, word):
    assert word == "server"

class TestClass:
    def test_in(self, vm):
        pass
"""
SUITES = {
    "boot/test_basics.py": "def test_boots(vm): assert vm.facts.backend == 'fake'",
    "smoke/conftest.py": WORD.format(word="smoke"),
    "smoke/test_same.py": "def test_it(vm, word): assert word == 'smoke'",
    "server/conftest.py": WORD.format(word="server") + EVERYWHERE,
    "server/test_same.py": SERVER_TESTS,
    "server/deeper/test_more.py": "def test_down(vm): pass",
}
SERVER = [
    "boot/test_basics.py::test_boots[[]server:v1]",
    "server/deeper/test_more.py::test_down[[]server:v1]",
    "server/test_same.py::test_it[[]server:v1]",
    "server/test_same.py::TestClass::test_in[[]server:v1]",
]


def collected(result: pytest.RunResult) -> list[str]:
    return [line.replace("[", "[[]") for line in result.outlines if "::" in line]


@pytest.mark.parametrize("wheel", [True, False])
def test_from_an_empty_folder(judge: Judge, install: Install, *, wheel: bool) -> None:
    install(SUITES, wheel=wheel)
    assert collected(judge("--suite=server", "--collect-only", "-q", apart=True)) == SERVER


@pytest.mark.parametrize("wheel", [True, False])
def test_suites_do_not_meet(judge: Judge, install: Install, *, wheel: bool, tmp_path: Path) -> None:
    install(SUITES, wheel=wheel)
    result = judge("--suite=server,smoke", f"--junitxml={tmp_path / 'junit.xml'}", apart=True)
    result.assert_outcomes(passed=5)
    assert result.ret == 0
    cases = ET.parse(tmp_path / "junit.xml").getroot().iter("testcase")
    found = {
        case.get("classname"): [p.get("value") for p in case.iter("property") if p.get("name") == "from"]
        for case in cases
    }
    assert found == {
        "boot.test_basics": [],
        "smoke.test_same": [],
        "server.test_same": ["server"],
        "server.test_same.TestClass": ["server"],
        "server.deeper.test_more": ["server"],
    }


def test_a_suite_that_judges_nothing_is_red(judge: Judge, install: Install, tmp_path: Path) -> None:
    feature = "@needs.brew\nFeature: Brew\n  Scenario: Works\n    When I run `true`\n    Then it succeeds\n"
    skipped = "import pytest\n@pytest.mark.image('dakota')\ndef test_it(vm): pass\n"
    install({**SUITES, "brew/brew.feature": feature, "brew/test_brew.py": skipped}, wheel=True)
    assert judge("--suite=smoke", apart=True).ret == 0
    junit, allure = tmp_path / "junit.xml", tmp_path / "allure"
    result = judge("--suite=smoke,brew", f"--junitxml={junit}", f"--alluredir={allure}", apart=True)
    result.assert_outcomes(passed=2, skipped=2)
    assert result.ret == 5
    told = (
        "suite brew: server:v1 was not judged by it, all its tests were skipped: "
        "needs an image named dakota (1), needs brew (1)"
    )
    result.stdout.fnmatch_lines(["oci:*: not judged by what was asked for: the suite brew", f"  {told}"])
    properties = ET.parse(junit).getroot().iter("property")
    assert ("not judged by the suite", "brew") in {(each.get("name"), each.get("value")) for each in properties}
    assert any(told in path.read_text() for path in allure.iterdir())


@pytest.mark.parametrize("wheel", [True, False])
def test_the_users_settings_do_not_matter(
    judge: Judge, install: Install, pytester: pytest.Pytester, *, wheel: bool
) -> None:
    install(SUITES, wheel=wheel)
    pytester.makeini(
        """
        [pytest]
        addopts = --import-mode=prepend
        python_files = check_*.py
        python_functions = check_*
        python_classes = Check
        testpaths = checks
        """
    )
    pytester.mkdir("checks").joinpath("check_own.py").write_text("def check_it(): assert False")
    result = judge("--suite=server,smoke", apart=True)
    result.assert_outcomes(passed=5)


def test_paths_and_suites_together(judge: Judge, install: Install, pytester: pytest.Pytester) -> None:
    install(SUITES, wheel=True)
    pytester.makepyfile(test_same="def test_own(vm): pass")
    result = judge("--suite=smoke", "--collect-only", "-q", "test_same.py", apart=True)
    assert collected(result) == [
        "boot/test_basics.py::test_boots[[]server:v1]",
        "test_same.py::test_own[[]server:v1]",
        "smoke/test_same.py::test_it[[]server:v1]",
    ]


def test_an_image_alone_means_the_users_own_tests(judge: Judge, install: Install, pytester: pytest.Pytester) -> None:
    install(SUITES, wheel=True)
    pytester.makepyfile(test_own="def test_own(vm): pass")
    assert collected(judge("--collect-only", "-q", apart=True)) == ["test_own.py::test_own[[]server:v1]"]


def test_ids_as_reports_print_them(judge: Judge, install: Install) -> None:
    install(SUITES, wheel=True)
    result = judge("server/test_same.py::TestClass", "smoke/test_same.py::test_it[server:v1]", "-v", apart=True)
    result.assert_outcomes(passed=2, deselected=2)
    result.stdout.fnmatch_lines(
        ["server/test_same.py::TestClass::test_in*PASSED*", "smoke/test_same.py::test_it*PASSED*"]
    )
    assert judge("server/test_none.py", apart=True).ret == 4


def test_a_path_that_is_there_is_a_path(judge: Judge, install: Install, pytester: pytest.Pytester) -> None:
    install(SUITES, wheel=True)
    pytester.mkdir("server").joinpath("test_same.py").write_text("def test_own(vm): pass")
    result = judge("server/test_same.py", "--collect-only", "-q", apart=True)
    assert collected(result) == ["server/test_same.py::test_own[[]server:v1]"]


def test_paths_into_a_checkout(judge: Judge, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = install(SUITES, wheel=False)
    (folder.parent / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.chdir(folder / "server")
    from_inside = judge(f"--rootdir={folder.parent}", "test_same.py", "-v", apart=True)
    from_inside.assert_outcomes(passed=2)
    monkeypatch.chdir(folder.parent)
    result = judge("suites/server/test_same.py::test_it", "--collect-only", "-q", apart=True)
    assert collected(result) == ["server/test_same.py::test_it[[]server:v1]"]
    both = judge("suites/server/test_same.py::test_it", "--suite=server", "--collect-only", "-q", apart=True)
    assert collected(both) == SERVER


def test_boot_comes_first_for_each_image(judge: Judge, install: Install, layout: Callable[..., str]) -> None:
    suites = {**SUITES, "aaa/test_first.py": "def test_a(vm): pass\n"}
    install(suites, wheel=True)
    result = judge(
        "--suite=aaa", f"--image={layout('other')}", "--collect-only", "-q", apart=True, image=layout("server")
    )
    assert collected(result) == [
        "boot/test_basics.py::test_boots[[]server:v1]",
        "aaa/test_first.py::test_a[[]server:v1]",
        "boot/test_basics.py::test_boots[[]other:v1]",
        "aaa/test_first.py::test_a[[]other:v1]",
    ]


def test_boot_comes_first_whoever_shuffles(
    judge: Judge, install: Install, layout: Callable[..., str], pytester: pytest.Pytester
) -> None:
    install({**SUITES, "aaa/test_first.py": "def test_a(vm): pass\n"}, wheel=True)
    pytester.makeconftest("def pytest_collection_modifyitems(items): items.reverse()")
    result = judge(
        "--suite=aaa", f"--image={layout('other')}", "--collect-only", "-q", apart=True, image=layout("server")
    )
    assert [line.partition("::")[0] for line in collected(result)] == ["boot/test_basics.py", "aaa/test_first.py"] * 2


def test_a_hook_in_a_suites_conftest_is_refused(judge: Judge, install: Install) -> None:
    install({**SUITES, "smoke/conftest.py": "def pytest_runtest_setup(): pass\n"}, wheel=True)
    result = judge("--suite=smoke", apart=True)
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*has pytest_runtest_setup: the conftest of a shipped suite*"])


def test_a_module_that_cannot_be_imported_shows_why(judge: Judge, install: Install) -> None:
    install({**SUITES, "smoke/test_same.py": "import nowhere_at_all\n"}, wheel=True)
    result = judge("--suite=smoke", apart=True)
    assert result.ret == 2
    result.stdout.fnmatch_lines(
        ["*ModuleNotFoundError: No module named 'nowhere_at_all'*", "ERROR smoke/test_same.py*"]
    )


def test_assertions_explain_themselves(
    judge: Judge, install: Install, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install({**SUITES, "smoke/test_same.py": "def test_it(vm):\n    one = 1\n    assert one == 2\n"}, wheel=True)
    pytester.makeini("[pytest]\npython_files = check_*.py")
    # pytest marks the packages of plugins that it has found by itself.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    judge("-ppytest_bootc.plugin", "--suite=smoke", "--strict-markers", apart=True).stdout.fnmatch_lines(
        ["E*assert 1 == 2"]
    )


def test_a_suite_may_change_the_machine(judge: Judge, install: Install, script: Callable[..., Path]) -> None:
    log = script("")
    bigger = (
        "import dataclasses, pytest\n"
        "@pytest.fixture(scope='session')\n"
        "def machine_spec(machine_spec): return dataclasses.replace(machine_spec, memory_mib=4096)\n"
    )
    install({**SUITES, "smoke/conftest.py": bigger + SUITES["smoke/conftest.py"]}, wheel=True)
    judge("--suite=server,smoke", apart=True).assert_outcomes(passed=5)
    provisioned = [line.split()[1] for line in log.read_text().splitlines() if line.startswith("provision")]
    assert sorted(set(provisioned)) == ["2048", "4096"]
    assert provisioned[0] == "2048"


@pytest.mark.parametrize("arguments", [["--suite=smoke"], []])
def test_last_failed(judge: Judge, install: Install, arguments: list[str]) -> None:
    install({**SUITES, "server/test_same.py": "def test_it(vm): assert 0\ndef test_other(vm): pass\n"}, wheel=True)
    judge("--suite=server", apart=True).assert_outcomes(passed=3, failed=1)
    again = judge("--suite=server", "--lf", apart=True)
    again.assert_outcomes(failed=1, deselected=3)
