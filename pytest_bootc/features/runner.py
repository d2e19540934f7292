"""Behave's runner without what pytest does better: hooks raise, and output is passed on while it is captured."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable
from typing import Any, TextIO

import pytest
from behave.capture import CaptureController
from behave.model import Scenario
from behave.runner import ModelRunner

from pytest_bootc.features.context import FeatureContext
from pytest_bootc.features.suite import FeatureSuite

#: How a hook or a step may end that does not interrupt the run.
OUTCOMES = (Exception, pytest.fail.Exception, pytest.skip.Exception)


def attempt(*calls: Callable[[], object]) -> None:
    """Make all of these calls, as behave does with hooks, and raise what the first that failed has raised.

    What interrupts the run is raised at once.
    """
    first: BaseException | None = None
    for call in calls:
        try:
            call()
        except OUTCOMES as error:
            if first is None:
                first = error
            else:
                first.add_note(f"And then: {type(error).__name__}: {error}")
    if first is not None:
        raise first


class FeatureRunner(ModelRunner):  # type: ignore[misc]  # behave has no types
    """What steps and hooks see as ``context._runner``."""

    def __init__(self, suite: FeatureSuite) -> None:
        super().__init__(suite.configuration, list(suite.features.values()), suite.registry)
        self.base_dir = suite.configuration.base_dir
        self.hooks = dict(suite.environment)
        self.capture_controller = _Passing(suite.configuration)
        self.context = FeatureContext(self)
        self.interrupted = False

    def run_hook(self, hook_name: str, *arguments: Any) -> bool:
        """Run a hook. That of a step leaves its error with the step, as in behave; all others raise it."""
        if hook_name not in self.hooks:
            return True
        try:
            with self.context.use_with_user_mode():
                self.hooks[hook_name](self.context, *arguments)
        except Exception as error:
            if not hook_name.endswith("_step"):
                raise
            (step,) = arguments
            step.hook_failed = True
            if step.exception is None:
                step.store_exception_context(error)
            else:
                step.exception.add_note(f"And then, in {hook_name}: {type(error).__name__}: {error}")
            return False
        return True

    def before_all(self) -> None:
        """Run the hook ``before_all``; without one, behave sets up logging."""
        if "before_all" in self.hooks:
            self.run_hook("before_all")
        else:
            self.config.setup_logging()

    def abort(self, reason: str | None = None) -> None:
        """Note that a step was interrupted, which behave takes for a failure of the step."""
        self.interrupted = self.interrupted or reason == "KeyboardInterrupt"


class _Tee(io.StringIO):
    """Keeps what is written, and passes it on."""

    def __init__(self) -> None:
        super().__init__()
        self.target: TextIO | None = None

    def write(self, text: str) -> int:
        if self.target is not None:
            self.target.write(text)
        return super().write(text)


class _Passing(CaptureController):  # type: ignore[misc]  # behave has no types
    """Captures for ``context.captured``, while pytest captures for its reports."""

    def setup_capture(self, context: Any = None, name: str | None = None) -> None:
        super().setup_capture(name=name)
        self.capture_stdout = _Tee() if self.config.capture_stdout else None
        self.capture_stderr = _Tee() if self.config.capture_stderr else None

    def start_capture(self) -> None:
        if isinstance(self.capture_stdout, _Tee) and not self.old_stdout:
            self.capture_stdout.target = sys.stdout
        if isinstance(self.capture_stderr, _Tee) and not self.old_stderr:
            self.capture_stderr.target = sys.stderr
        super().start_capture()


class Traits:
    """What features change for the whole process, so that it can be set back."""

    def __init__(self) -> None:
        root = logging.getLogger()
        self._level, self._handlers = root.level, list(root.handlers)
        self._continues = Scenario.continue_after_failed_step

    def restore(self) -> None:
        """Set back logging, and whether scenarios go on after a failed step."""
        root = logging.getLogger()
        root.setLevel(self._level)
        for handler in [handler for handler in root.handlers if handler not in self._handlers]:
            root.removeHandler(handler)
        Scenario.continue_after_failed_step = self._continues
