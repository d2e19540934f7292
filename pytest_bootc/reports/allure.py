"""What the Allure report says beyond what allure-pytest writes by itself.

allure-pytest is always installed, and without ``--alluredir`` nobody listens: every call is then without effect.
"""

from __future__ import annotations

import copy
import inspect
import json
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import allure
import allure_commons
import pytest
from allure_commons.model2 import (
    Label,
    Parameter,
    StatusDetails,
    TestAfterResult,
    TestBeforeResult,
    TestResult,
    TestResultContainer,
)
from allure_commons.types import AttachmentType

from pytest_bootc.model import Scope
from pytest_bootc.verdict import State, shown

# Allure 2 sorts failures by these, and sees no labels; Allure 3 has its own, in allurerc.json.
_CATEGORIES = [
    {"name": "Good only when tried again", "matchedStatuses": ["failed"], "flaky": True},
    {"name": "The image failed", "matchedStatuses": ["failed"]},
    {"name": "Laboratory, options or tests", "matchedStatuses": ["broken"]},
    {"name": "Not judged", "matchedStatuses": ["skipped"]},
]
# Whatever else there is, HTML of a guest among it, is shown as text.
_TYPES = {".png": AttachmentType.PNG, ".svg": AttachmentType.SVG, ".json": AttachmentType.JSON}
_CLASS = re.compile(r"^(?:pytest_bootc\.errors\.\w+|AssertionError): ")
_FINALISER = re.compile(r"::[0-9]+$")
_FLAKY = "it passed only when it was tried again"
_STATE = "state"
_SCOPE = "scope"


@dataclass(frozen=True, repr=False)
class Plain:
    """A text that Allure shows as it is. It shows a string in quotes, and the ``repr`` of anything else."""

    text: str

    def __repr__(self) -> str:
        return self.text


def add_labels(item: pytest.Item, subject: str, suite: str | None) -> None:
    """Sort a test under its subject and suite. Marks, because a skipped test never comes to say more."""
    labels = {"parentSuite": subject}
    if suite is not None:
        labels |= {"suite": suite, "subSuite": item.path.stem}
    for kind, text in labels.items():
        item.add_marker(pytest.mark.allure_label(text, label_type=kind))


def note_digest(digest: str) -> None:
    """Say which image it was. Excluded from the history, which would else begin anew with every build."""
    allure.dynamic.parameter("digest", Plain(digest), excluded=True)


def set_state(state: State, scope: Scope | None = None) -> None:
    """Say what is known of the current test by now; what was said before of it does not count any more."""
    allure.dynamic.label(_STATE, state.value)  # type: ignore[no-untyped-call]
    if scope is not None:
        allure.dynamic.label(_SCOPE, scope.value)  # type: ignore[no-untyped-call]


class StatusByState:
    """Gives each result the status of its state, where allure-pytest has one by the exception's class.

    And shorter texts: a name without the subject, by which tests are sorted anyway; a message that begins with what
    is wrong; a docstring without its indentation, which Markdown takes for code.
    """

    def __init__(self) -> None:
        self._failures: dict[str, str] = {}

    @allure_commons.hookimpl(tryfirst=True)
    def report_result(self, result: TestResult) -> None:
        """Called for each result that is complete, and before it is written."""
        said = {label.name: label.value for label in result.labels}
        if _STATE not in said:
            return
        state = State(said[_STATE])
        _set_labels(result, {name: said[name] for name in (_STATE, _SCOPE) if name in said})
        result.status = _status(state)
        result.name = name_without(result.name, said.get("parentSuite", ""))
        result.description = result.description and inspect.cleandoc(result.description)
        if state is State.FLAKY:
            result.statusDetails = result.statusDetails or StatusDetails(message=_FLAKY)
            result.statusDetails.flaky = True
            first = self._failures.get(result.historyId)
            if first and result.statusDetails.message == _FLAKY:
                result.statusDetails.message += f". At first:\n{first}"
        elif result.statusDetails is not None and result.statusDetails.message is not None:
            result.statusDetails.message = _CLASS.sub("", result.statusDetails.message, count=1)
            if state.red:
                self._failures[result.historyId] = result.statusDetails.message

    @allure_commons.hookimpl(tryfirst=True)
    def report_container(self, container: TestResultContainer) -> None:
        """Called for each fixture when it is done: what is nobody's concern while it works is left out."""
        container.befores = [step for step in container.befores if _is_told(step)]
        container.afters = [step for step in container.afters if _is_told(step)]
        for step in container.afters:
            step.name = _FINALISER.sub("", step.name)


def _is_told(step: TestBeforeResult | TestAfterResult) -> bool:
    # pytest's own finalisers have no status, for allure-pytest never hears of their end.
    inner = step.name.startswith("_") or step.name.endswith("::<lambda>")
    return not inner or step.status not in (None, "passed")


def name_without(name: str, subject: str) -> str:
    """A test's name without the parameter that says what it judges."""
    test, bracket, rest = name.partition("[")
    if not subject or not bracket or not rest.endswith("]"):
        return name
    parameters = f"-{rest[:-1]}-".replace(f"-{subject}-", "-", 1).strip("-")
    return f"{test}[{parameters}]" if parameters else test


def _status(state: State) -> str:
    return shown(state, "call").allure  # which is the same in all phases


def _set_labels(result: TestResult, labels: Mapping[str, str]) -> None:
    others = [label for label in result.labels if label.name not in labels]
    result.labels = [*others, *(Label(name, value) for name, value in labels.items())]


def begin_another_try(config: pytest.Config) -> None:
    """Write what is known of the current test as a result of its own, which Allure shows among the test's retries."""
    listener = config.pluginmanager.get_plugin("allure_listener")
    result: TestResult | None = None if listener is None else listener.allure_logger.get_test(None)
    if result is None:
        return
    first = copy.copy(result)
    first.uuid = str(uuid.uuid4())
    allure_commons.plugin_manager.hook.report_result(result=first)
    # New ones, for the result that was written may have been kept by whoever listens.
    result.labels, result.links, result.attachments, result.steps = [], [], [], []
    result.statusDetails = None
    result.start = time.time_ns() // 1_000_000


def add_lost(nodeid: str, subject: str, suite: str | None, message: str) -> None:
    """Write the result of a test whose worker died, and with it whatever it would have written."""
    file, *classes, test = nodeid.split("::")
    module = file.removesuffix(".py").replace("/", ".")
    name, _, _ = test.partition("[")
    labels = {"parentSuite": subject, "suite": suite or module, "subSuite": module.rpartition(".")[2] if suite else ""}
    labels |= {_STATE: State.INFRA.value, "package": module}
    moment = time.time_ns() // 1_000_000
    result = TestResult(
        uuid=str(uuid.uuid4()),
        name=name_without(test, subject),
        fullName=f"{'.'.join((module, *classes))}#{name}",
        status=_status(State.INFRA),
        statusDetails=StatusDetails(message=message),
        labels=[Label(kind, text) for kind, text in labels.items() if text],
        parameters=[Parameter("image", subject)] if f"[{subject}" in test else [],
        start=moment,
        stop=moment,
    )
    allure_commons.plugin_manager.hook.report_result(result=result)


def add_run_error(message: str) -> None:
    """Say what is wrong with the whole run: Allure shows it among the global errors."""
    allure.global_error(message)


def decide_statuses(config: pytest.Config) -> None:
    """Have the states of this run's tests decide their statuses, until pytest is done with ``config``."""
    plugin = StatusByState()
    allure_commons.plugin_manager.register(plugin)
    config.add_cleanup(lambda: allure_commons.plugin_manager.unregister(plugin))


def attach(paths: Iterable[Path]) -> None:
    """Attach files to the current test."""
    for path in paths:
        kind = _TYPES.get(path.suffix, AttachmentType.TEXT)
        allure.attach.file(path, path.name, kind)  # type: ignore[no-untyped-call]


def start_step(title: str, parameters: Mapping[str, str]) -> str:
    """Begin a step of the current test; what is attached from now on is the step's. Returns its identity."""
    identity = str(uuid.uuid4())
    allure_commons.plugin_manager.hook.start_step(uuid=identity, title=title, params=parameters)
    return identity


def stop_step(identity: str, error: BaseException | None) -> None:
    """End a step, with what it has failed with."""
    told = {} if error is None else {"exc_type": type(error), "exc_val": error, "exc_tb": error.__traceback__}
    nothing = {"exc_type": None, "exc_val": None, "exc_tb": None}
    allure_commons.plugin_manager.hook.stop_step(uuid=identity, **(nothing | told))


def leave_out_step(title: str) -> None:
    """Tell of a step that is not run."""
    stop_step(start_step(title, {}), pytest.skip.Exception("it was not run"))


def attach_text(name: str, text: str, *, csv: bool = False) -> None:
    """Attach a text, or a table as CSV, to the current step or test."""
    allure.attach(text, name, AttachmentType.CSV if csv else AttachmentType.TEXT)


def attach_data(name: str, data: bytes | str, mime_type: str) -> None:
    """Attach data of a type to the current step or test."""
    known = {kind.mime_type: kind for kind in AttachmentType}
    allure.attach(data, name, known.get(mime_type, mime_type))


def write_run_files(folder: Path, environment: Mapping[str, str]) -> None:
    """Write what holds for the whole run: environment.properties and categories.json."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{_escaped(name, ' :=')} = {_escaped(value, '')}\n" for name, value in environment.items())
    (folder / "environment.properties").write_text(lines)
    (folder / "categories.json").write_text(json.dumps(_CATEGORIES, indent=2) + "\n")


def _escaped(text: str, separators: str) -> str:
    """A key or a value of a Java properties file (java.util.Properties.load)."""
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    for character in separators:
        text = text.replace(character, f"\\{character}")
    return text
