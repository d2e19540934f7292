"""Every private name of pytest and xdist that this package uses, and nothing else. Tried with pytest 8.4 and 9.2."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest
from _pytest._code.code import ExceptionChainRepr, ExceptionRepr, ReprEntryNative, ReprFileLocation
from _pytest.assertion.rewrite import rewrite_asserts
from _pytest.junitxml import xml_key
from _pytest.runner import runtestprotocol

F = TypeVar("F", bound=pytest.Function)

_RUNNERS = ("runner", "pytest_bootc.item_hooks")


def offer_fixtures(node: pytest.Collector) -> None:
    """Offer the fixtures of the node's object (its attribute ``obj``) to all below it, as ``pytest.Module`` does.

    The way of a ``conftest.py`` in pytest 8.4 would offer them to the whole run when it lies outside the root folder.
    """
    node.session._fixturemanager.parsefactories(node)


def parameter(item: pytest.Item, name: str) -> object | None:
    """The value of a test's parameter, if it has one of that name."""
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get(name)


def add_suite_property(config: pytest.Config, name: str, value: str) -> None:
    """Add a property to the JUnit report's test suite, if one is written.

    The fixture ``record_testsuite_property`` does the same, but only where tests run: not in xdist's controller.
    """
    log = config.stash.get(xml_key, None)
    if log is not None:
        log.add_global_property(name, value)


def run_phases(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
    """Run setup, call and teardown of a test; may be done again. The reports are shown by whoever called."""
    return runtestprotocol(item, log=False, nextitem=nextitem)


def forget_failed_fixtures(item: pytest.Item) -> None:
    """Have the fixtures that a test can see, and that failed, be set up again, of whatever scope they are."""
    if not isinstance(item, pytest.Function):
        return
    item._initrequest()
    manager = item.session._fixturemanager
    for name in _fixture_names(manager):
        for definition in manager.getfixturedefs(name, item) or ():
            if definition.cached_result is not None and definition.cached_result[2] is not None:
                definition.finish(item._request)  # type: ignore[arg-type]  # it asks for the node only


def _fixture_names(manager: object) -> set[str]:
    """Also of those that a test asks for only while it runs. pytest 9.2 has them in two tables, older ones in one."""
    tables = ("_arg2fixturedefs", "_arg2node2fixturedefs", "_arg2nodeid2fixturedefs")
    return {name for table in tables for name in getattr(manager, table, ())}


def is_run_by_others(item: pytest.Item) -> bool:
    """Whether another plugin runs this test in its own way, pytest-rerunfailures for example."""
    reruns = getattr(item.config.option, "reruns", None) or item.get_closest_marker("flaky") is not None
    # Of those that see this test: a conftest has its say below its own folder only.
    for hook in item.ihook.pytest_runtest_protocol.get_hookimpls():
        idle = hook.plugin_name == "rerunfailures" and not reruns
        if not (hook.wrapper or hook.hookwrapper or idle or hook.plugin_name in _RUNNERS):
            return True
    return False


def functions(module: pytest.Module, name: str, function: Callable[..., object]) -> list[pytest.Function]:
    """The items that pytest makes of a function in a module: one, or as many as its parameters make."""
    # A function without parameters is looked up by name.
    setattr(module.obj, name, function)
    try:
        return list(module._genfunctions(name, function))
    finally:
        delattr(module.obj, name)


def as_kind(made: pytest.Function, kind: type[F], parent: pytest.Collector) -> F:
    """The same item, of another class and perhaps below another collector."""
    item: F = kind.from_parent(
        parent,
        name=made.name,
        callspec=getattr(made, "callspec", None),
        callobj=made.obj,
        fixtureinfo=made._fixtureinfo,
        originalname=made.originalname,
        keywords=getattr(made, "callspec", None) and {made.callspec.id: True},
    )
    return item


def fixture_definition(node: pytest.Item | pytest.Collector, name: str) -> pytest.FixtureDef[Any] | None:
    """What a fixture's name means to a node, if it means anything."""
    definitions = node.session._fixturemanager.getfixturedefs(name, node)
    return definitions[-1] if definitions else None


def is_set_up(node: pytest.Item, name: str) -> bool:
    """Whether a fixture has its value by now."""
    definition = fixture_definition(node, name)
    return definition is not None and definition.cached_result is not None and definition.cached_result[2] is None


def rewrite_assertions(tree: ast.Module, source: bytes, path: Path, config: pytest.Config) -> None:
    """Have the assertions of a module explain themselves, unless ``--assert=plain`` says otherwise."""
    if config.getoption("assertmode") == "rewrite":
        rewrite_asserts(tree, source, str(path), config)


def skip_at_item(reason: str) -> NoReturn:
    """Skip a test, and name its place, not this one."""
    raise pytest.skip.Exception(reason, _use_item_location=True)


def without_traceback(excinfo: pytest.ExceptionInfo[BaseException], path: Path, line: int) -> object:
    """How an error is shown that happened at a line of a file which is no Python."""
    shown = excinfo.getrepr(style="value")
    return ExceptionChainRepr([(shown.reprtraceback, ReprFileLocation(str(path), line, str(excinfo.value)), None)])


def put_before(shown: object, lines: Sequence[str]) -> None:
    """Put lines before the traceback of a failure; xdist carries them along."""
    trace = getattr(shown, "reprtraceback", None)
    if isinstance(shown, ExceptionRepr) and trace is not None:
        trace.reprentries.insert(0, ReprEntryNative([f"{line}\n" for line in lines]))


def scope_of(scheduler: object) -> Callable[[str], str]:
    """What one of xdist's schedulers keeps together: makes the scope of a test's id; each by itself for most.

    ``LoadScopeScheduling`` has it as the method that other schedulers are made by overriding.
    """
    return getattr(scheduler, "_split_scope", str)


def set_up_first(item: pytest.Item, name: str) -> None:
    """Have a function-scoped fixture set up before all others of that scope, whoever has defined them.

    pytest 8.4 sets up the automatic ones of a root conftest before those of a plugin that came later.
    """
    info = getattr(item, "_fixtureinfo", None)
    if info is None or name not in info.names_closure:
        return
    names: list[str] = info.names_closure
    names.remove(name)
    scopes = [definitions[-1].scope if (definitions := info.name2fixturedefs.get(other)) else "" for other in names]
    names.insert(scopes.index("function") if "function" in scopes else len(names), name)
