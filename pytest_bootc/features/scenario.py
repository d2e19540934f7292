"""One run of one scenario: its hooks, its steps, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from behave.model import ScenarioOutline
from behave.model_type import Status

from pytest_bootc import compat
from pytest_bootc.features import internals
from pytest_bootc.features.failures import EmptyScenarioError, UndefinedStepError, with_snippets
from pytest_bootc.features.reporter import StepReporter
from pytest_bootc.features.runner import FeatureRunner, attempt
from pytest_bootc.features.traces import without_runner


class ScenarioRun:
    """A scenario that runs; made anew for each try."""

    def __init__(self, scenario: Any, runner: FeatureRunner, reporter: StepReporter) -> None:
        self.scenario = scenario
        self.reporter = reporter
        self._runner = runner
        self._begun = False

    @property
    def aborted(self) -> bool:
        """Whether a hook or a step wants the whole run to end."""
        return bool(self._runner.aborted)

    def begin(self) -> None:
        """Run the hooks before the scenario.

        :raises BaseException: what the first of them that failed has raised; or pytest's skip, if one says so.
        """
        scenario, runner, context = self.scenario, self._runner, self._runner.context
        scenario.clear_status()
        scenario.captured.reset()
        scenario.hook_failed = False
        if isinstance(scenario, ScenarioOutline):
            return
        self._skip_if_told()
        for step in scenario.all_steps:
            step.reset()
        runner.formatters = [self.reporter]
        internals.push(context, "scenario")
        self._begun = True
        context.scenario = scenario
        context.scenario_began = time.monotonic()
        context.tags = set(scenario.effective_tags)
        internals.set_for_the_run(context, "active_outline", internals.row_of(scenario))
        runner.setup_capture(name="scenario")
        try:
            attempt(
                *(lambda tag=tag: runner.run_hook("before_tag", tag) for tag in scenario.tags),
                lambda: runner.run_hook("before_scenario", scenario),
            )
        except BaseException:
            scenario.hook_failed = True
            raise
        self._skip_if_told()

    def run_steps(self) -> None:
        """Run the steps.

        :raises EmptyScenarioError: there are none.
        :raises UndefinedStepError: one has no definition.
        :raises BaseException: what the first step that failed has raised; or pytest's skip, if one says so.
        """
        scenario = self.scenario
        if isinstance(scenario, ScenarioOutline):
            raise EmptyScenarioError("the outline has no examples: nothing was judged")
        failure: BaseException | None = None
        skipped: BaseException | None = None
        undefined_before = len(self._runner.undefined_steps)
        all_steps = list(scenario.all_steps)
        if not all_steps:
            raise EmptyScenarioError("the scenario has no steps: nothing was judged")
        steps = iter(all_steps)
        for step in steps:
            try:
                error = self._run(step)
            except pytest.skip.Exception as told:
                skipped = told
                break
            if error is not None:
                failure = failure or error
                scenario.set_status(Status.failed if step.status is Status.failed else Status.error)
                internals.note_failure(self._runner.context)
            if (error is not None and not scenario.continue_after_failed_step) or scenario.should_skip:
                break
        self._leave_out(steps, search=failure is not None)
        if failure is not None:
            raise with_snippets(failure, self._runner.undefined_steps[undefined_before:])
        if skipped is not None:
            raise skipped
        self._skip_if_told()

    def end(self) -> None:
        """Run the hooks after the scenario, and its cleanups.

        :raises BaseException: what the first of them that failed has raised.
        """
        scenario, runner, context = self.scenario, self._runner, self._runner.context
        if not self._begun:
            return
        self._begun = False
        # From now on it is what its steps make of it.
        scenario.clear_status()
        context.fixtures.serve(None)
        try:
            attempt(
                lambda: runner.run_hook("after_scenario", scenario),
                *(lambda tag=tag: runner.run_hook("after_tag", tag) for tag in scenario.tags),
                lambda: internals.pop(context),
            )
        except BaseException:
            scenario.set_status(Status.hook_error)
            raise
        finally:
            context.fixtures.forget("scenario")
            internals.set_for_the_run(context, "active_outline", None)
            runner.teardown_capture()
            # Its status is kept; another try begins as if nobody had skipped it.
            scenario.set_status(scenario.status)
            scenario.should_skip = False

    def _run(self, step: Any) -> BaseException | None:
        """Run one step; what it has failed with. What ends the scenario, or the run, is raised."""
        self.reporter.begin(step)
        try:
            passed = step.run(self._runner)
        # Behave lets through what is no Exception, and leaves its capturing on.
        except pytest.fail.Exception as error:
            self._runner.stop_capture()
            step.set_status(Status.failed)
            self.reporter.end(step, error)
            return error
        except BaseException as error:
            self._runner.stop_capture()
            step.set_status(Status.skipped if isinstance(error, pytest.skip.Exception) else Status.error)
            self.reporter.end(step, error)
            raise
        if self._runner.interrupted:
            step.set_status(Status.error)
            raise KeyboardInterrupt
        failure = None if passed else self._failure_of(step)
        self.reporter.end(step, failure)
        return failure

    def _failure_of(self, step: Any) -> BaseException:
        if step.status is Status.undefined:
            return UndefinedStepError(f"undefined step: {step.keyword} {step.name}")
        error: BaseException | None = step.exception
        if error is None:
            return AssertionError(step.error_message or f"{step.status.name}: {step.keyword} {step.name}")
        return error.with_traceback(without_runner(step.exc_traceback))

    def _leave_out(self, steps: Iterator[Any], *, search: bool) -> None:
        """Mark the steps that are not run any more; after a failure, undefined ones are looked for among them."""
        for step in steps:
            step.set_status(Status.skipped)
            if search and self._runner.step_registry.find_match(step) is None:
                step.set_status(Status.undefined)
                self._runner.undefined_steps.append(step)
            self.reporter.leave_out(step)

    def _skip_if_told(self) -> None:
        if self.scenario.should_skip:
            compat.skip_at_item(self.scenario.skip_reason or "skipped by a hook or a step")
