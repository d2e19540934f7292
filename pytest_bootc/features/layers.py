"""What lasts longer than a scenario: the run of a suite, a feature, a rule, each with its hooks and its cleanups.

They are no fixtures and no collectors of pytest: those would end what was asked for later before the hook that used
it, and would begin a suite only once where it runs for several images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import pytest

from pytest_bootc.features import internals
from pytest_bootc.features.runner import OUTCOMES, FeatureRunner, Traits, attempt
from pytest_bootc.features.suite import FeatureSuite

_STACK = pytest.StashKey["LayerStack"]()


@dataclass(frozen=True)
class Place:
    """Where a scenario lies: its suite, what is judged (one image after the other), its feature and perhaps its rule.

    ``machine`` is the name of the machine that its fixtures use; a fresh one knows nothing of what hooks have done.
    """

    suite: FeatureSuite = field(compare=False)
    root: str
    subject: str
    entities: tuple[Any, ...] = field(compare=False)
    names: tuple[str, ...]
    machine: str = ""

    def shares(self, other: Place | None) -> int:
        """How many layers two places have in common, their machines aside."""
        if other is None or (self.root, self.subject) != (other.root, other.subject):
            return 0
        common = 1
        for mine, theirs in zip(self.names, other.names, strict=False):
            if mine != theirs:
                break
            common += 1
        return common


class LayerStack:
    """The layers that have been entered in this process."""

    def __init__(self) -> None:
        self._place: Place | None = None
        self._suite_layer: _SuiteLayer | None = None
        self._layers: list[_SuiteLayer | _EntityLayer] = []
        self._end: Callable[[], None] | None = None
        self._errors: dict[int, tuple[BaseException, TracebackType | None]] = {}

    def enter(self, place: Place, item: pytest.Function) -> FeatureRunner:
        """Come to a place; leave first what it does not share, where that was not done after the scenario before.

        :raises BaseException: what a hook has raised, now or when its layer was entered.
        """
        __tracebackhide__ = True
        if self._place is not None and self._place.machine != place.machine:
            self._leave_machine(item)
        self.leave(place)
        self._place = place
        if self._suite_layer is None:
            self._suite_layer = _SuiteLayer(place.suite)
            self._begin(self._suite_layer, item)
        else:
            self._suite_layer.serve(item)
        self._raise_known()
        runner = self._suite_layer.runner()
        for entity in place.entities[len(self._layers) - 1 :]:
            self._begin(_EntityLayer(entity, runner), item)
            self._raise_known()
        return runner

    def begin(self, end: Callable[[], None]) -> None:
        """A scenario has begun, and ends so, should the run be interrupted before :meth:`leave`."""
        self._end = end

    def leave(self, following: Place | None) -> None:
        """End the scenario, and leave the layers that the scenario that follows does not need.

        :raises BaseException: what the first hook or cleanup that failed has raised.
        """
        __tracebackhide__ = True
        kept = 0 if self._place is None else self._place.shares(following)
        ends = [layer.leave for layer in reversed(self._layers[kept:])]
        if self._end is not None:
            ends.insert(0, self._end)
            self._end = None
        for number in range(kept, len(self._layers)):
            self._errors.pop(number, None)
        try:
            attempt(*ends)
        finally:
            del self._layers[kept:]
            if not self._layers:
                self._suite_layer = None

    def _leave_machine(self, item: pytest.Function) -> None:
        """Leave everything, because the machine is another one. What fails for that reason is nobody's fault."""
        try:
            self.leave(None)
        except OUTCOMES as error:
            item.add_report_section("setup", "hooks", f"The machine was replaced; {type(error).__name__}: {error}")

    def _begin(self, layer: _SuiteLayer | _EntityLayer, item: pytest.Function) -> None:
        self._layers.append(layer)
        try:
            layer.enter(item)
        except OUTCOMES as error:
            self._errors[len(self._layers) - 1] = error, error.__traceback__

    def _raise_known(self) -> None:
        __tracebackhide__ = True
        for error, trace in self._errors.values():
            raise error.with_traceback(trace)


def stack_of(config: pytest.Config) -> LayerStack:
    """The layers of this process."""
    return config.stash.setdefault(_STACK, LayerStack())


class _SuiteLayer:
    """The run of a suite: from ``before_all`` to ``after_all``."""

    def __init__(self, suite: FeatureSuite) -> None:
        self._suite = suite
        self._traits = Traits()
        self._runner: FeatureRunner | None = None

    def runner(self) -> FeatureRunner:
        assert self._runner is not None, "what could not be entered has no layers above it"
        return self._runner

    def serve(self, item: pytest.Function | None) -> None:
        if self._runner is not None:
            self._runner.context.fixtures.serve(item)

    def enter(self, item: pytest.Function) -> None:
        self._suite.activate()
        self._suite.load()
        for feature in self._suite.features.values():
            _include(feature)
        self._runner = FeatureRunner(self._suite)
        self.serve(item)
        self._runner.before_all()

    def leave(self) -> None:
        runner = self._runner
        self.serve(None)
        try:
            if runner is not None:
                attempt(lambda: runner.run_hook("after_all"), lambda: internals.clean_up(runner.context))
        finally:
            self._suite.deactivate()
            self._traits.restore()


class _EntityLayer:
    """A feature or a rule."""

    def __init__(self, entity: Any, runner: FeatureRunner) -> None:
        self._entity = entity
        self._runner = runner
        self._depth = 0
        # A rule of a feature that a hook has skipped has no hooks; its scenarios are skipped one by one.
        self._hooked = not entity.should_skip

    def enter(self, item: pytest.Function) -> None:
        entity, runner, context = self._entity, self._runner, self._runner.context
        entity.clear_status()
        entity.hook_failed = False
        self._depth = internals.depth(context)
        internals.push(context, entity.type)
        context.tags = set(entity.tags)
        setattr(context, entity.type, entity)
        if entity.type == "feature":
            runner.feature = entity
        if not self._hooked:
            return
        try:
            attempt(
                *(lambda tag=tag: runner.run_hook("before_tag", tag) for tag in entity.tags),
                lambda: runner.run_hook(f"before_{entity.type}", entity),
            )
        except BaseException:
            entity.hook_failed = True
            raise

    def leave(self) -> None:
        entity, runner, context = self._entity, self._runner, self._runner.context
        entity.clear_status()
        context.fixtures.serve(None)
        hooks = [
            lambda: runner.run_hook(f"after_{entity.type}", entity),
            *(lambda tag=tag: runner.run_hook("after_tag", tag) for tag in entity.tags),
        ]
        try:
            attempt(*(hooks if self._hooked else ()), lambda: internals.pop(context))
        finally:
            context.fixtures.forget(entity.type)
            while internals.depth(context) > self._depth:
                internals.pop(context)


def _include(feature: Any) -> None:
    """Forget what was skipped when the suite ran before, for another image."""
    for entity in (feature, *feature.walk_scenarios(with_outlines=True, with_rules=True)):
        entity.should_skip = False
        entity.skip_reason = None
