"""The nodes that pytest collects: a feature file is a module, a rule a collector, a scenario a function."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from behave.model import Rule, ScenarioOutline
from behave.parser import ParserError, parse_file
from behave.runner_util import FeatureLineDatabase

from pytest_bootc import compat
from pytest_bootc.errors import BootcTestError
from pytest_bootc.features import internals, selection
from pytest_bootc.features.failures import ScenarioError, text_of
from pytest_bootc.features.layers import Place, stack_of
from pytest_bootc.features.reporter import StepRecord, StepReporter
from pytest_bootc.features.scenario import ScenarioRun
from pytest_bootc.features.suite import FeatureSuite, suite_for
from pytest_bootc.features.tags import TagReader, fixtures_in, tags_of
from pytest_bootc.features.traces import without_runner

_EXAMPLE = "example"
_LONGEST_ID = 80
_READER = pytest.StashKey[TagReader]()
_MACHINES = ("image", "vm", "ssh", "guest", "fresh_vm")


@dataclass(frozen=True)
class Gathering:
    """How the run collects features: userdata for all of them, and which fixtures a scenario uses unasked."""

    userdata: dict[str, str]
    fixtures: tuple[str, ...]
    in_allure: bool


class Example:
    """A row of an outline's examples, as a parameter. Allure makes a test's history of how it is shown."""

    def __init__(self, scenario: Any, shown: str) -> None:
        self.scenario = scenario
        self._shown = shown

    def __repr__(self) -> str:
        return self._shown


class FeatureFile(pytest.Module):
    """A ``.feature`` file."""

    gathering: Gathering
    suite: FeatureSuite
    feature: Any = None

    @classmethod
    def at(cls, path: Path, parent: pytest.Collector, gathering: Gathering) -> FeatureFile:
        """The node for a file."""
        nodeid = parent.file_nodeid(path) if isinstance(parent, selection.NamesFiles) else None
        node: FeatureFile = cls.from_parent(parent, path=path, nodeid=nodeid)
        node.gathering = gathering
        return node

    def _getobj(self) -> ModuleType:
        module = ModuleType(self.path.stem)
        module.__file__ = str(self.path)
        return module

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """The scenarios of the file, and its rules."""
        try:
            self.suite = suite_for(self.path, selection.top_for(self), self.config, self.gathering.userdata)
            if self.suite.configuration.exclude(str(self.path)):
                return
            self.feature = parse_file(str(self.path), language=self.suite.configuration.lang)
        except (ParserError, BootcTestError) as error:
            raise self.CollectError(str(error)) from error
        except UnicodeDecodeError as error:
            raise self.CollectError(f"{self.path} is not UTF-8: {error}") from error
        except KeyError as error:
            raise self.CollectError(f"{self.path}: behave knows no language {error}") from error
        if self.feature is None:
            return
        self.suite.features[self.path] = self.feature
        wanted = self._wanted()
        names = _Names()
        for entity in self.feature.run_items:
            if isinstance(entity, Rule):
                name = names.unique(f"{entity.keyword}: {entity.name}")
                rule = RuleNode.at(self, name, entity, wanted)
                if any(id(scenario) in wanted for scenario in entity.walk_scenarios()) or not wanted:
                    yield rule
            else:
                yield from self.items(self, entity, names, wanted)

    def items(
        self, parent: pytest.Collector, entity: Any, names: _Names, wanted: frozenset[int]
    ) -> Iterator[ScenarioItem]:
        """The tests of a scenario, or of an outline: those that are wanted, or all of them where that is empty."""
        whole = list(entity.scenarios) if isinstance(entity, ScenarioOutline) else [entity]
        scenarios = [each for each in whole if not wanted or id(each) in wanted]
        name = names.unique(entity.name or "(no name)")
        if whole and not scenarios:
            return
        if isinstance(entity, ScenarioOutline) and whole:
            rows = pytest.mark.parametrize(_EXAMPLE, list(self._examples(scenarios)))
            function = _outline_function(entity, [rows])
        else:
            # An outline without examples stands for itself, so that it is told.
            function = _scenario_function(entity, self._marks(entity))
        uses = self._fixtures({tag for each in (entity, *scenarios) for tag in each.effective_tags})
        if uses:
            function.pytestmark.append(pytest.mark.usefixtures(*uses))
        function.__name__ = name
        function.__doc__ = "\n".join(entity.description) or None
        for made in compat.functions(self, name, function):
            yield compat.as_kind(made, ScenarioItem, parent)

    def _wanted(self) -> frozenset[int]:
        lines = selection.lines_of(self.path, self.config)
        if not lines:
            return frozenset()
        database = FeatureLineDatabase.make(self.feature)
        return frozenset(id(scenario) for line in lines for scenario in database.select_scenarios_by_line(line))

    def _examples(self, scenarios: Iterable[Any]) -> Iterator[Any]:
        names = _Names()
        for scenario in scenarios:
            row = internals.row_of(scenario)
            told = ", ".join(f"{heading}={cell}" for heading, cell in row.items())
            shown = told if len(told) <= _LONGEST_ID else f"row {row.id}"
            identity = names.unique(shown.replace(", ", ","))
            yield pytest.param(Example(scenario, shown), id=identity, marks=self._marks(scenario))

    def _marks(self, scenario: Any) -> list[pytest.MarkDecorator]:
        reader = self.config.stash.setdefault(_READER, TagReader(self.config, labelled=self.gathering.in_allure))
        marks = reader.marks(tags_of(scenario))
        if self.gathering.in_allure:
            marks.append(pytest.mark.allure_label(self.feature.name, label_type="feature"))
        if not scenario.should_run(self.suite.configuration):
            marks.append(pytest.mark.skip(reason="left out by behave's settings (tags or names)"))
        return marks

    def _fixtures(self, tags: set[str]) -> list[str]:
        """The fixtures that a scenario uses: those that its tags name, as far as pytest has them, and a machine."""
        named = [name for name in fixtures_in(tags) if compat.fixture_definition(self, name) is not None]
        return named if any(name in _MACHINES for name in named) else [*named, *self.gathering.fixtures]


class RuleNode(pytest.Collector):
    """A rule of a feature, with its scenarios."""

    file: FeatureFile
    rule: Any
    wanted: frozenset[int]

    @classmethod
    def at(cls, file: FeatureFile, name: str, rule: Any, wanted: frozenset[int]) -> RuleNode:
        """The node for a rule of a file."""
        node: RuleNode = cls.from_parent(file, name=name)
        node.file, node.rule, node.wanted = file, rule, wanted
        return node

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """The scenarios of the rule."""
        names = _Names()
        for entity in self.rule.run_items:
            yield from self.file.items(self, entity, names, self.wanted)


class ScenarioItem(pytest.Function):
    """A scenario."""

    #: Its steps and hooks may ask for any fixture.
    asks_late = True
    _running: ScenarioRun | None = None

    @property
    def scenario(self) -> Any:
        """Behave's scenario; an outline, if it has no examples."""
        example = compat.parameter(self, _EXAMPLE)
        return example.scenario if isinstance(example, Example) else self.obj.scenario

    @property
    def file(self) -> FeatureFile:
        """The file that the scenario is in."""
        file = self.getparent(FeatureFile)
        assert file is not None
        return file

    @property
    def records(self) -> list[StepRecord]:
        """The steps, as far as they were run by now."""
        return [] if self._running is None else self._running.reporter.records

    def place(self) -> Place:
        """Where the scenario lies. Which machine it uses is known when its fixtures are there."""
        rule = self.getparent(RuleNode)
        entities = (self.file.feature,) if rule is None else (self.file.feature, rule.rule)
        names = (self.file.nodeid,) if rule is None else (self.file.nodeid, rule.nodeid)
        machine = (getattr(self, "funcargs", None) or {}).get("vm")
        suite, subject = self.file.suite, str(compat.parameter(self, "image"))
        return Place(suite, str(suite.root), subject, entities, names, str(getattr(machine, "name", "")))

    def setup(self) -> None:
        """Set up the fixtures, come to the scenario's place, and run the hooks before it."""
        __tracebackhide__ = True
        self._running = None
        super().setup()
        try:
            stack = stack_of(self.config)
            runner = stack.enter(self.place(), self)
            reporter = StepReporter(in_allure=self.file.gathering.in_allure)
            self._running = ScenarioRun(self.scenario, runner, reporter)
            stack.begin(self._running.end)
            self._running.begin()
        except BaseException as error:
            error.__traceback__ = without_runner(error.__traceback__) or error.__traceback__
            raise
        finally:
            self._heed_abort()

    def runtest(self) -> None:
        """Run the steps."""
        __tracebackhide__ = True
        assert self._running is not None
        try:
            self._running.run_steps()
        except BaseException as error:
            error.__traceback__ = without_runner(error.__traceback__) or error.__traceback__
            raise
        finally:
            self._heed_abort()

    def leave(self, following: pytest.Item | None) -> None:
        """Run the hooks after the scenario, and after all that the item which follows does not share with it.

        :raises BaseException: what the first of them that failed has raised.
        """
        __tracebackhide__ = True
        try:
            stack_of(self.config).leave(following.place() if isinstance(following, ScenarioItem) else None)
        except BaseException as error:
            error.__traceback__ = without_runner(error.__traceback__) or error.__traceback__
            raise

    def _heed_abort(self) -> None:
        """End the run after this scenario, if a hook or a step has said so. Before the teardown, which has to know."""
        if self._running is not None and self._running.aborted:
            self.session.shouldstop = "a hook or a step has aborted the run"

    def reportinfo(self) -> tuple[Path, int, str]:
        """The scenario's line."""
        return self.path, self.scenario.line - 1, self.name

    def repr_failure(  # type: ignore[override]  # what pytest's own type does not tell: any terminal representation
        self, excinfo: pytest.ExceptionInfo[BaseException]
    ) -> object:
        """The scenario's text with the step marked, then the traceback of the step."""
        if isinstance(excinfo.value, ScenarioError):
            shown = compat.without_traceback(excinfo, self.path, self._failed_line())
        else:
            shown = super().repr_failure(excinfo)
        if self.records:
            compat.put_before(shown, list(text_of(self.scenario, self.nodeid.partition("::")[0])))
        return shown

    def _failed_line(self) -> int:
        lines = [record.line for record in self.records if record.status not in ("passed", "skipped")]
        return lines[0] if lines else int(self.scenario.line)


class _Names:
    """Names that are unique among their siblings, and that node ids can be made of."""

    def __init__(self) -> None:
        self._given: dict[str, int] = {}

    def unique(self, name: str) -> str:
        safe = name.replace("::", ":").replace("[", "(").replace("]", ")")
        number = self._given[safe] = self._given.get(safe, 0) + 1
        return safe if number == 1 else self.unique(f"{safe} #{number}")


def _scenario_function(scenario: Any, marks: list[pytest.MarkDecorator]) -> Any:
    def run(request: pytest.FixtureRequest) -> None:
        """Stands for the scenario; the item runs it."""

    function: Any = run
    function.scenario, function.pytestmark = scenario, marks
    return function


def _outline_function(outline: Any, marks: list[pytest.MarkDecorator]) -> Any:
    def run(request: pytest.FixtureRequest, example: Example) -> None:
        """Stands for a row of the outline; the item runs it."""

    function: Any = run
    function.scenario, function.pytestmark = outline, marks
    return function
