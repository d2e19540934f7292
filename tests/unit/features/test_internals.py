"""Behave is left as it was found, whatever a suite registers."""

from __future__ import annotations

import behave
import pytest
from behave import matchers, step_registry

from pytest_bootc.features import internals


def state() -> tuple[object, ...]:
    factory = matchers.get_step_matcher_factory()
    steps = {kind: list(definitions) for kind, definitions in step_registry.registry.steps.items()}
    types = dict(matchers.ParseMatcher.TYPE_REGISTRY)
    names = sorted(factory.step_matcher_class_mapping)
    raises = step_registry.registry.RAISE_ERROR_ON_BAD_STEP_DEFINITION
    return steps, types, names, factory.current_matcher, factory.default_matcher, raises


def test_what_is_registered_goes_elsewhere() -> None:
    before = state()
    steps: dict[str, list[object]] = {"given": [], "when": [], "then": [], "step": []}

    class Mine(matchers.RegexMatcher):  # type: ignore[misc]
        NAME = "mine"

    def fail() -> None:
        with internals.registering(steps):
            behave.given("a thing")(lambda context: None)
            behave.register_type(Thing=str)
            matchers.register_step_matcher_class("mine", Mine)
            behave.use_step_matcher("re")
            raise RuntimeError("the step file fails")

    with pytest.raises(RuntimeError, match="the step file fails"):
        fail()
    assert state() == before
    assert [definition.pattern for definition in steps["given"]] == ["a thing"]


def test_a_broken_pattern_is_an_error_meanwhile() -> None:
    steps: dict[str, list[object]] = {"given": [], "when": [], "then": [], "step": []}
    behave_re = matchers.get_step_matcher_factory()
    with internals.registering(steps):
        behave_re.use_step_matcher("re")
        with pytest.raises(Exception, match="unterminated subpattern"):
            behave.given("a (")(lambda context: None)
    assert steps["given"] == []
