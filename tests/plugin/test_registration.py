"""How the plugin gets into pytest, and into this repository's own runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Judge = Callable[..., pytest.RunResult]

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("workers", [[], ["-n2"]])
def test_a_conftest_may_name_the_plugin_too(judge: Judge, pytester: pytest.Pytester, workers: list[str]) -> None:
    pytester.makeconftest('pytest_plugins = ["pytest_bootc.plugin"]')
    pytester.makepyfile("def test_it(vm): pass")
    judge(*workers, apart=True).assert_outcomes(passed=1)


def test_it_can_be_named_on_the_command_line(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(vm): pass")
    judge("-ppytest_bootc.plugin", apart=True).assert_outcomes(passed=1)


def test_from_a_folder_below(judge: Judge, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makeini("[pytest]\ntestpaths = tests")
    folder = pytester.mkdir("tests")
    (folder / "test_a.py").write_text("def test_it(vm): pass")
    monkeypatch.chdir(folder)
    result = judge("--collect-only", "-q")
    result.stdout.fnmatch_lines(["*test_a.py::test_it[[]server:v1]"])


@pytest.fixture
def repository(install: Callable[..., Path]) -> Path:
    """A checkout with the repository's own root conftest, one suite, and tests of its own."""
    suites = install({"boot/test_basics.py": "def test_boots(vm): pass\n", "aaa/test_a.py": "def test_a(vm): pass\n"},
                     wheel=False)  # fmt: skip
    root = suites.parent
    (root / "conftest.py").write_text((REPOSITORY / "conftest.py").read_text())
    (root / "pytest.ini").write_text("[pytest]\ntestpaths = tests\n")
    (root / "tests").mkdir()
    (root / "tests" / "test_own.py").write_text("def test_own(): pass\n")
    return root


def collected(result: pytest.RunResult) -> list[str]:
    return sorted(line.partition("[")[0] for line in result.outlines if "::" in line)


def test_in_this_repository(
    repository: Path, pytester: pytest.Pytester, layout: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, own = f"--image={layout()}", ["tests/test_own.py::test_own"]
    suites = ["aaa/test_a.py::test_a", "boot/test_basics.py::test_boots"]

    def run(*arguments: str) -> list[str]:
        return collected(pytester.runpytest_subprocess("--backend=fake", "--collect-only", "-q", *arguments))

    monkeypatch.chdir(repository)
    assert run() == own
    assert run(image) == suites
    assert run("--host=h.example", "--backend=remote") == suites
    assert run(image, "tests") == own
    assert run(image, "--suite=boot") == suites[1:]
    assert run(image, "--suite=boot", "tests") == suites[1:] + own
    monkeypatch.setenv("BOOTC_IMAGE", image.removeprefix("--image="))
    assert run() == suites


def test_in_this_repository_with_workers(
    repository: Path, pytester: pytest.Pytester, layout: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    result = pytester.runpytest_subprocess("--backend=fake", f"--image={layout()}", "-n2")
    result.assert_outcomes(passed=2)
    assert result.ret == 0


def test_the_root_conftest_is_short() -> None:
    assert len((REPOSITORY / "conftest.py").read_text().splitlines()) <= 20


def test_a_plain_run_imports_next_to_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_it():
            ours = {name for name in sys.modules if name.startswith("pytest_bootc")}
            assert ours == {"pytest_bootc", "pytest_bootc.plugin", "pytest_bootc.options", "pytest_bootc.fixtures"}
            assert not {"paramiko", "oras", "cryptography", "zstandard"}.intersection(sys.modules)
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
