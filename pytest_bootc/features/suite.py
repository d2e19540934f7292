"""A folder of features: where it begins, its ``environment.py`` and step files, and what they bring into Python.

Behave runs one such folder per process. Here several live side by side, so each has its own step definitions, and
what it has put into ``sys.path`` and ``sys.modules`` is there only while its scenarios run.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from behave.api import step_matchers
from behave.matchers import use_current_step_matcher_as_default, use_default_step_matcher
from behave.pathutil import select_subdirectories
from behave.step_registry import setup_step_decorators

from pytest_bootc import compat
from pytest_bootc.errors import ConfigError
from pytest_bootc.features import internals
from pytest_bootc.features.selection import folders_up_to
from pytest_bootc.features.settings import make_configuration
from pytest_bootc.features.steps import LayeredRegistry
from pytest_bootc.features.traces import without_runner

_SUITES = pytest.StashKey[dict[Path, "FeatureSuite"]]()
_LIBRARIES = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_KINDS = ("given", "when", "then", "step")
_numbers = itertools.count(1)


class _Definitions(list[Any]):
    """The definitions of one kind of step; notes the modules whose import has led to each."""

    def __init__(self, definitions: list[Any], noted: set[str]) -> None:
        super().__init__(definitions)
        self._noted = noted

    def append(self, definition: Any) -> None:
        frame = inspect.currentframe()
        while frame is not None:
            if frame.f_code.co_name == "<module>":
                self._noted.add(str(frame.f_globals.get("__name__")))
            frame = frame.f_back
        super().append(definition)


class FeatureSuite:
    """One folder of features.

    :raises ConfigError: behave's settings for it cannot be read.
    """

    def __init__(self, folder: Path, top: Path, config: pytest.Config, userdata: dict[str, str]) -> None:
        self.configuration = make_configuration(folder, userdata)
        self.root = _root(folder, top, self.configuration)
        # As behave's runner does when it has found out; hooks look for files there.
        self.configuration.base_dir = str(self.root)
        self.configuration.paths = [str(self.root)]
        self.features: dict[Path, Any] = {}
        self.registry = LayeredRegistry()
        self.environment: dict[str, Any] = {}
        self._config = config
        self._package = f"features_{next(_numbers)}"
        self._registering: set[str] = set()
        self._modules: dict[str, ModuleType] = {}
        self._displaced: dict[str, ModuleType] = {}
        self._known: set[str] = set()
        self._paths: list[str] = []
        self._loaded = False
        self._failure: ConfigError | None = None

    def load(self) -> None:
        """Load ``environment.py`` and the step files, once; the suite has to be active.

        :raises ConfigError: one of them cannot be loaded, or two definitions collide; the same one every time.
        """
        if self._failure is not None:
            raise self._failure
        if self._loaded:
            return
        steps = {kind: _Definitions(known, self._registering) for kind, known in internals.global_steps().items()}
        path = self.root
        try:
            with internals.registering(dict(steps)):
                for path in self._files():
                    self._execute(path)
        except (Exception, SystemExit) as error:
            self._failure = _load_error(path, error)
            raise self._failure from error
        self.registry.steps = {kind: list(definitions) for kind, definitions in steps.items()}
        self._loaded = True

    def definitions(self) -> list[Any]:
        """Every step definition of its own."""
        return [definition for kind in _KINDS for definition in self.registry.steps[kind]]

    def activate(self) -> None:
        """Put the suite's folders into ``sys.path``, and back its modules into ``sys.modules``."""
        steps = self.root / self.configuration.steps_dir
        self._paths = [str(path) for path in (steps, self._config.invocation_params.dir, self.root)]
        sys.path[:0] = self._paths
        # Behave is mostly started there; pytest may have been started anywhere.
        above = str(self.root.parent)
        if above not in sys.path:
            sys.path.append(above)
            self._paths.append(above)
        self._displaced = {name: sys.modules[name] for name in self._modules if name in sys.modules}
        self._known = set(sys.modules) - set(self._modules)
        sys.modules.update(self._modules)

    def deactivate(self) -> None:
        """Take the suite's folders out of ``sys.path``, and its modules and those with steps out of ``sys.modules``."""
        fresh = [(name, module) for name, module in sys.modules.items() if name not in self._known]
        self._modules = {name: module for name, module in fresh if self._owns(name, module)}
        for name in self._modules:
            del sys.modules[name]
        sys.modules.update(self._displaced)
        for path in self._paths:
            if path in sys.path:
                sys.path.remove(path)

    def _owns(self, name: str, module: ModuleType) -> bool:
        if name in self._registering:
            return True
        places = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", ())]
        paths = [Path(place) for place in places if place]
        return any(
            path.is_relative_to(self.root) and not any(path.is_relative_to(library) for library in _LIBRARIES)
            for path in paths
        )

    def _files(self) -> Iterator[Path]:
        """What is to be executed, in behave's order; the matcher is set back after each step file as behave does."""
        environment = self.root / self.configuration.environment_file
        if environment.is_file():
            yield environment
        use_current_step_matcher_as_default()
        steps = self.root / self.configuration.steps_dir
        folders = [steps] if steps.is_dir() else []
        if folders and self.configuration.use_nested_step_modules:
            folders += [Path(folder) for folder in select_subdirectories(str(steps))]
        for folder in folders:
            for path in sorted(folder.glob("*.py")):
                yield path
                use_default_step_matcher()

    def _execute(self, path: Path) -> None:
        """Execute a file as a module of its own, with assertions that explain themselves."""
        inside = path.relative_to(self.root).with_suffix("").parts
        module = ModuleType(".".join((self._package, *inside)))
        module.__file__ = str(path)
        if path.name == self.configuration.environment_file and path.parent == self.root:
            self.environment = vars(module)
        else:
            names = ("use_step_matcher", "step_matcher")
            vars(module).update({name: getattr(step_matchers, name) for name in names})
            setup_step_decorators(vars(module))
        sys.modules[module.__name__] = module
        source = path.read_bytes()
        tree = ast.parse(source, str(path))
        compat.rewrite_assertions(tree, source, path, self._config)
        exec(compile(tree, str(path), "exec", dont_inherit=True), vars(module))


def suite_for(path: Path, top: Path, config: pytest.Config, userdata: dict[str, str]) -> FeatureSuite:
    """The suite that a feature file belongs to; where it begins is looked for up to a folder, ``top``.

    Raises as :class:`FeatureSuite` does.
    """
    suites = config.stash.setdefault(_SUITES, {})
    suite = suites.get(path.parent)
    if suite is None:
        suite = FeatureSuite(path.parent, top, config, userdata)
        suite = suites[path.parent] = suites.setdefault(suite.root, suite)
    return suite


def suites_of(config: pytest.Config) -> list[FeatureSuite]:
    """The suites that were collected."""
    return list(dict.fromkeys(config.stash.get(_SUITES, {}).values()))


def _root(folder: Path, top: Path, configuration: Any) -> Path:
    """The nearest folder with steps or an environment, from here upwards; else this one."""
    for place in folders_up_to(top, folder):
        if (place / configuration.steps_dir).is_dir() or (place / configuration.environment_file).is_file():
            return place
    return folder


def _load_error(path: Path, error: BaseException) -> ConfigError:
    trace = traceback.format_exception(type(error), error, without_runner(error.__traceback__))
    return ConfigError(f"{path} cannot be loaded: {type(error).__name__}: {error}", details="".join(trace))
