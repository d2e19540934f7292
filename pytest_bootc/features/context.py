"""Behave's ``context``, which has pytest's fixtures too: ``context.vm`` in a step or a hook is the fixture ``vm``."""

from __future__ import annotations

from typing import Any

import pytest
from behave.runner import Context

from pytest_bootc import compat
from pytest_bootc.errors import ConfigError
from pytest_bootc.features import internals

_NOTHING = object()
# The layer of the context during which a fixture of each scope lasts. (No class is around a scenario.)
_LAYERS = {"session": "testrun", "package": "feature", "module": "feature", "class": "scenario", "function": "scenario"}
_ORDER = ("testrun", "feature", "rule", "scenario")


class FixtureError(ConfigError, AttributeError):
    """A fixture that there is cannot be had here; ``hasattr(context, NAME)`` is false.

    The run judges nothing and it is a machine, or it does not last as long as what the hook that asks prepares.
    """


class FeatureContext(Context):  # type: ignore[misc]  # behave has no types
    """The context of a run of features.

    Attributes that nobody has set are looked up among the fixtures that the scenario can see: those of this package
    and of conftests, and any other that a tag ``@fixture.NAME`` names.
    """

    def __init__(self, runner: Any) -> None:
        self._fixtures = LazyFixtures()
        super().__init__(runner)

    def __repr__(self) -> str:
        # In the explanation of an assertion, ``context.n`` is what one wants to read.
        return "context"

    @property
    def fixtures(self) -> LazyFixtures:
        """Where fixtures come from."""
        return self._fixtures

    def embed(self, mime_type: str, data: Any, caption: str | None = None) -> None:
        """Attach to the report, as the formatters of behave's html-pretty plugin do."""
        for formatter in self._runner.formatters:
            formatter.embedding(mime_type, data, caption)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_"):
                raise
            value = self._fixtures.value(name, internals.layer_of(self))
            if value is _NOTHING:
                raise
            return value

    def __contains__(self, name: str) -> bool:
        return bool(super().__contains__(name)) or self._fixtures.holds(name)


class LazyFixtures:
    """The fixtures of the scenario that runs, and those that were used before and last."""

    def __init__(self) -> None:
        self._item: pytest.Function | None = None
        self._used: dict[str, dict[str, object]] = {layer: {} for layer in _ORDER}

    def serve(self, item: pytest.Function | None) -> None:
        """Take fixtures from this scenario's request; ``None``: none may be made any more."""
        self._item = item

    def forget(self, layer: str) -> None:
        """A layer of the context has ended."""
        self._used[layer].clear()

    def holds(self, name: str) -> bool:
        """Whether a fixture of this name was used, and still lasts."""
        return any(name in used for used in self._used.values())

    def value(self, name: str, layer: str) -> object:
        """The value of a fixture, made if need be.

        :raises FixtureError: it would not outlast the layer, or the run cannot have it.
        """
        if self._item is None:
            return next((used[name] for used in self._used.values() if name in used), _NOTHING)
        definition = compat.fixture_definition(self._item, name)
        if definition is None or not self._is_offered(name, definition):
            return _NOTHING
        lasting = _LAYERS[str(definition.scope)]
        if _ORDER.index(lasting) > _ORDER.index(layer):
            raise FixtureError(
                f"context.{name} is a fixture of scope {definition.scope}, which does not last for a {layer}",
                resolution="use it in the hooks of a scenario and in steps, or widen its scope",
            )
        request: Any = self._item.funcargs["request"]
        try:
            value: object = request.getfixturevalue(name)
        except ConfigError as error:
            raise FixtureError(error.brief, details=error.details, resolution=error.resolution) from error
        self._used[lasting][name] = value
        return value

    def _is_offered(self, name: str, definition: pytest.FixtureDef[Any]) -> bool:
        """Not every fixture of every plugin: features of behave ask ``hasattr(context, "browser")``."""
        if self._item is None or name in self._item.fixturenames:
            return self._item is not None
        function = definition.func
        ours = str(getattr(function, "__module__", "")).startswith("pytest_bootc.")
        code = getattr(function, "__code__", None)
        return ours or (code is not None and str(code.co_filename).endswith("conftest.py"))
