"""What is wrong with steps and their definitions, found out without running any: ``--check-steps``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_bootc.errors import ConfigError
from pytest_bootc.features.failures import snippet
from pytest_bootc.features.steps import definitions_of
from pytest_bootc.features.suite import FeatureSuite, suites_of


def check(session: pytest.Session) -> bool:
    """Write what was found about the collected features; what is undefined counts as a failed test each."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    for suite in suites_of(session.config):
        findings = list(_findings(suite))
        session.testsfailed += sum(bad for _, bad in findings)
        if reporter is not None:
            reporter.section(f"steps of {_shown(str(suite.root))}")
            for line, _ in findings or [("every step has one definition, and every definition is used", False)]:
                reporter.write_line(line)
    return True


def _findings(suite: FeatureSuite) -> Iterator[tuple[str, bool]]:
    """Lines, and whether each is a failure."""
    suite.activate()
    try:
        suite.load()
        yield from _look(suite)
    except ConfigError as error:
        yield str(error), True
    finally:
        suite.deactivate()


def _look(suite: FeatureSuite) -> Iterator[tuple[str, bool]]:
    found: dict[tuple[str, str], list[Any]] = {}
    undefined: dict[Any, None] = {}
    for path, step in _steps(suite):
        key = step.step_type, step.name
        if key not in found:
            found[key] = _definitions(suite, step)
        place = f"{_shown(path)}:{step.line}: {step.keyword} {step.name}"
        if not found[key]:
            undefined[step] = None
            yield f"undefined: {place}", True
        elif len(found[key]) > 1:
            told = " and ".join(str(definition.location) for definition in found[key])
            yield f"ambiguous: {place} (the first is used: {told})", False
    used = {id(definition) for definitions in found.values() for definition in definitions[:1]}
    for definition in suite.definitions():
        if id(definition) not in used:
            yield f"unused: {definition.location}: {definition.describe()}", False
    for step in undefined:
        yield f"\n{snippet(step)}", False


def _steps(suite: FeatureSuite) -> Iterator[tuple[str, Any]]:
    for path, feature in suite.features.items():
        for scenario in feature.walk_scenarios():
            yield from ((str(path), step) for step in scenario.all_steps)


def _definitions(suite: FeatureSuite, step: Any) -> list[Any]:
    """All that match, in the order in which behave looks; one of the library only where there are none."""
    kinds = dict.fromkeys((step.step_type, "step"))
    candidates = [definition for kind in kinds for definition in suite.registry.steps[kind]]
    own = [definition for definition in candidates if definition.match(step.name)]
    return own or list(definitions_of(step.name))


def _shown(path: str) -> str:
    return os.path.relpath(path)
