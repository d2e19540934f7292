"""Every private name of behave that this package uses, and nothing else. Tried with behave 1.3.3."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from behave import matchers, step_registry

#: Where cucumber expressions keep their types, once a step file has asked for them.
_CUCUMBER = "behave.cucumber_expression"


@contextmanager
def registering(steps: dict[str, list[Any]]) -> Iterator[None]:
    """Have step files register into ``steps`` while the context lasts, and leave behave as it was.

    The decorators are closures over behave's only registry, so it is its table that is exchanged. The same holds for
    the types of patterns, the table of matchers, and which matcher is in use.
    """
    registry, factory = step_registry.registry, matchers.get_step_matcher_factory()
    before = registry.steps, factory.step_matcher_class_mapping, factory.default_matcher, factory.current_matcher
    types = matchers.ParseMatcher.TYPE_REGISTRY
    registry.steps = steps
    factory.step_matcher_class_mapping = dict(before[1])
    factory.use_default_step_matcher(factory.initial_matcher_name)
    # A parser keeps the very table that it was made with.
    matchers.ParseMatcher.TYPE_REGISTRY = matchers.TypeRegistry(types)
    registry.RAISE_ERROR_ON_BAD_STEP_DEFINITION = True
    _renew_cucumber_types()
    try:
        yield
    finally:
        del registry.RAISE_ERROR_ON_BAD_STEP_DEFINITION
        matchers.ParseMatcher.TYPE_REGISTRY = types
        registry.steps, factory.step_matcher_class_mapping, factory.default_matcher, factory._current_matcher = before
        _renew_cucumber_types()


def _renew_cucumber_types() -> None:
    module = sys.modules.get(_CUCUMBER)
    if module is not None:
        module.StepMatcher4CucumberExpressions.TYPE_REGISTRY.clear()


def global_steps() -> dict[str, list[Any]]:
    """What was registered outside of any suite, by a conftest for example; a copy."""
    return {kind: list(definitions) for kind, definitions in step_registry.registry.steps.items()}


def push(context: Any, layer: str) -> None:
    """Begin a layer of the context: ``feature``, ``rule`` or ``scenario``."""
    context._push(layer=layer)


def pop(context: Any) -> None:
    """End the innermost layer of the context, and do its cleanups. Raises what the first of them that fails raises."""
    context._pop()


def depth(context: Any) -> int:
    """How many layers the context has."""
    return len(context._stack)


def layer_of(context: Any) -> str:
    """The innermost layer: ``testrun``, ``feature``, ``rule`` or ``scenario``."""
    return str(next(frame["@layer"] for frame in context._stack if "@layer" in frame))


def clean_up(context: Any) -> None:
    """End all layers but the outermost, and do the cleanups of that one, too. Raises what the first one raises."""
    context._do_remaining_cleanups()


def set_for_the_run(context: Any, name: str, value: object) -> None:
    """Set an attribute in the outermost layer."""
    context._set_root_attribute(name, value)


def note_failure(context: Any) -> None:
    """Set ``context.failed``."""
    set_for_the_run(context, "failed", value=True)


def row_of(scenario: Any) -> Any:
    """The row of the examples that a scenario was made from, if it was."""
    return scenario._row
