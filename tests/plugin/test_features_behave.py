"""One folder with all of behave's constructs ends alike under behave and under pytest, and runs the same hooks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "features_behave"
# Behave's own program and runner; it writes how each scenario ended.
BEHAVE = """
import json, sys
from behave.__main__ import run_behave
from behave.configuration import Configuration
from behave.runner import Runner

class Telling(Runner):
    def run(self):
        failed = super().run()
        scenarios = [scenario for feature in self.features for scenario in feature.walk_scenarios()]
        told = {str(scenario.location): scenario.status.name for scenario in scenarios}
        open(sys.argv[1], "w").write(json.dumps(told))
        return failed

assert run_behave(Configuration(["features"]), Telling) == 1
"""
# How behave calls what pytest calls passed, failed and skipped. What ends in a hook, pytest calls an error.
OUTCOMES = {
    "passed": {"passed"},
    "failed": {"failed"},
    "error": {"failed"},
    "hook_error": {"error"},
    "cleanup_error": {"error"},
    "untested": {"error"},
    "skipped": {"skipped"},
}


class Outcomes:
    """How each scenario ended, by file and line; the worst of its phases counts."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        path, line, _ = report.location
        assert line is not None
        place = f"{path}:{line + 1}"
        outcome = "error" if report.failed and report.when != "call" else report.outcome
        weight = ("passed", "skipped", "failed", "error").index
        self.found[place] = max(self.found.get(place, "passed"), outcome, key=weight)


@pytest.fixture
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(FOLDER, pytester.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("EVENTS", str(pytester.path / "events"))
    return pytester.path


def under_behave(folder: Path) -> dict[str, str]:
    answer = folder / "answer.json"
    subprocess.run([sys.executable, "-c", BEHAVE, str(answer)], check=True, capture_output=True, cwd=folder)
    told: dict[str, str] = json.loads(answer.read_text())
    return told


def under_pytest(pytester: pytest.Pytester, *arguments: str) -> dict[str, str]:
    outcomes = Outcomes()
    pytester.inline_run("features", "-Werror", *arguments, plugins=[outcomes])
    return outcomes.found


def events(folder: Path) -> list[str]:
    """The hooks that ran since they were last asked for."""
    path = folder / "events"
    told = path.read_text().splitlines()
    path.unlink()
    return told


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, set[str]], list[str]]:
    """How the scenarios end under behave, and the hooks that it runs."""
    folder = tmp_path_factory.mktemp("behave")
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    os.environ["EVENTS"] = str(folder / "events")
    try:
        told = under_behave(folder)
    finally:
        del os.environ["EVENTS"]
    return {place: OUTCOMES[status] for place, status in told.items()}, events(folder)


def differences(found: dict[str, str], expected: dict[str, set[str]]) -> dict[str, object]:
    places = sorted(found.keys() | expected.keys())
    return {
        place: (found.get(place), expected.get(place))
        for place in places
        if found.get(place) not in expected.get(place, ())
    }


def test_outcomes_and_hooks_are_the_same(
    pytester: pytest.Pytester, folder: Path, expected: tuple[dict[str, set[str]], list[str]]
) -> None:
    outcomes, hooks = expected
    found = under_pytest(pytester)
    assert len(outcomes) >= 55
    assert set(found.values()) == {"passed", "failed", "error", "skipped"}
    assert differences(found, outcomes) == {}
    assert events(folder) == hooks


def test_reversed_order(
    pytester: pytest.Pytester, folder: Path, expected: tuple[dict[str, set[str]], list[str]]
) -> None:
    (folder / "conftest.py").write_text("def pytest_collection_modifyitems(items): items.reverse()\n")
    outcomes, hooks = expected
    assert differences(under_pytest(pytester), outcomes) == {}
    assert sorted(events(folder)) == sorted(hooks)


def test_workers(pytester: pytest.Pytester, folder: Path, expected: tuple[dict[str, set[str]], list[str]]) -> None:
    assert differences(under_pytest(pytester, "-n3"), expected[0]) == {}
