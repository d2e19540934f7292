"""The shipped suites as part of pytest's collection.

They lie beside the package in a checkout and inside it in a wheel, mostly outside pytest's root folder. They are
collected by nodes of our own, so that neither the place nor the user's ini file shows in them: node ids (and with
them JUnit class names and Allure full names) begin at the suite, ``boot/test_boot.py::test_it``; modules are imported
by path under names of their own, whatever the import mode; ``test_*.py`` and ``test_*`` are what is collected.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

import pytest

from pytest_bootc.compat import offer_fixtures, parameter
from pytest_bootc.options import BOOT_SUITE

#: The package name that suite modules are given, and that pytest rewrites assertions in.
SUITES_PACKAGE = "pytest_bootc.suites"

_HERE = Path(__file__).parent
_NOT_FOLDERS = ("_", ".")


def suites_folder() -> Path:
    """The folder with one folder per suite: in the package (wheel), or beside it (checkout)."""
    inside = _HERE / "suites"
    return inside if inside.is_dir() else _HERE.parent / "suites"


def suite_names() -> tuple[str, ...]:
    """The words that ``--suite`` takes."""
    folder = suites_folder()
    return tuple(path.name for path in _entries(folder) if path.is_dir()) if folder.is_dir() else ()


def suite_of(item: pytest.Item) -> str | None:
    """The shipped suite that a test belongs to."""
    folder = item.getparent(SuiteFolder)
    return None if folder is None else item.path.relative_to(suites_folder()).parts[0]


@dataclass(frozen=True)
class Selection:
    """What of the shipped suites a run collects: whole suites, and single node ids as reports print them."""

    suites: tuple[str, ...] = ()
    nodeids: tuple[str, ...] = ()

    @classmethod
    def from_arguments(cls, arguments: list[str], suites: tuple[str, ...], *, given: bool) -> Selection:
        """Take out of pytest's arguments those that name shipped tests by their id.

        ``given`` says whether somebody typed the arguments. If not, and suites are selected, none of them stays:
        what pytest would do by default is not what was asked for.
        """
        names = suite_names()
        nodeids = tuple(argument for argument in arguments if _is_shipped(argument, names))
        rest = [argument for argument in arguments if argument not in nodeids and not _is_covered(argument, suites)]
        arguments[:] = rest if given or not suites else []
        return cls(suites, nodeids)

    @property
    def folders(self) -> tuple[str, ...]:
        """The suites that have to be looked into."""
        return tuple(dict.fromkeys((*self.suites, *(nodeid.partition("/")[0] for nodeid in self.nodeids))))

    def wants(self, item: pytest.Item) -> bool:
        """Whether a test that was found on the way to the selected ones is one of them."""
        suite = suite_of(item)
        if suite is None or not self.folders or suite in self.suites or suite not in self.folders:
            return True
        return any(item.nodeid == nodeid or item.nodeid.startswith((f"{nodeid}::", f"{nodeid}[", f"{nodeid}/"))
                   for nodeid in self.nodeids)  # fmt: skip


class SuiteFolder(pytest.Collector):
    """The folder of all suites, of one suite, or one below it. Its ``conftest.py`` offers fixtures, and no hooks."""

    obj: ModuleType

    @classmethod
    def at(cls, parent: pytest.Collector, path: Path) -> SuiteFolder:
        """The node for a folder in the suites."""
        inside = path.relative_to(suites_folder().parent).as_posix()
        node: SuiteFolder = cls.from_parent(parent, name=path.name, path=path, nodeid=f"pytest_bootc/{inside}")
        return node

    def file_nodeid(self, path: Path) -> str:
        """The node id of a file in the folder that is no module."""
        return suite_nodeid(path)

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Fixtures first, then what is in the folder."""
        conftest = self.path / "conftest.py"
        if conftest.is_file() and not hasattr(self, "obj"):
            self.obj = _import(conftest, self)
            _refuse_hooks(self.obj, self)
            offer_fixtures(self)
        for path in self._selected():
            yield from self._nodes(path)

    def _selected(self) -> Iterable[Path]:
        selection = self.config.stash[SELECTION]
        if self.path == suites_folder() and selection.folders:
            return [self.path / name for name in selection.folders]
        return _entries(self.path)

    def _nodes(self, path: Path) -> Iterator[pytest.Collector]:
        if path.is_dir():
            yield SuiteFolder.at(self, path)
        elif path.suffix != ".py":
            yield from self.ihook.pytest_collect_file(file_path=path, parent=self)
        elif path.name.startswith("test_"):
            yield SuiteModule.from_parent(self, path=path, nodeid=suite_nodeid(path))


class SuiteNames:
    """The names of tests in the suites, whatever the user's own tests are called."""

    def funcnamefilter(self, name: str) -> bool:
        """Test functions begin with ``test_``."""
        return name.startswith("test_")

    def classnamefilter(self, name: str) -> bool:
        """Test classes begin with ``Test``."""
        return name.startswith("Test")


class SuiteModule(SuiteNames, pytest.Module):
    """A module of tests in a suite."""

    def _getobj(self) -> ModuleType:
        return _import(self.path, self)


class SuiteClass(SuiteNames, pytest.Class):
    """A class of tests in a suite."""


#: Where a run keeps its selection.
SELECTION = pytest.StashKey[Selection]()


def suite_nodeid(path: Path) -> str:
    """The node id of a file in the suites: its path from the suites' folder on."""
    return path.relative_to(suites_folder()).as_posix()


def collect_folder(path: Path, parent: pytest.Collector) -> SuiteFolder | None:
    """The node for a folder that pytest came across, if it is the suites' folder (in a checkout it is in sight)."""
    return SuiteFolder.at(parent, path) if path == suites_folder() else None


def collect_class(collector: pytest.Collector, name: str, obj: object) -> SuiteClass | None:
    """The node for a class in a suite's module."""
    if not isinstance(collector, SuiteNames) or not isinstance(obj, type) or not collector.classnamefilter(name):
        return None
    node: SuiteClass = SuiteClass.from_parent(collector, name=name, obj=obj)
    return node


def select_suites(config: pytest.Config, suites: tuple[str, ...]) -> None:
    """Note what of the shipped suites is to be collected, from the options and pytest's arguments.

    Assertions in the suites' modules are rewritten from now on.
    """
    pytest.register_assert_rewrite(SUITES_PACKAGE)
    given = config.args_source is pytest.Config.ArgsSource.ARGS
    config.stash[SELECTION] = Selection.from_arguments(config.args, suites, given=given)


def with_suites(collector: pytest.Collector, report: pytest.CollectReport) -> pytest.CollectReport:
    """Add the selected suites to what pytest found by its own arguments."""
    if isinstance(collector, pytest.Session) and collector.config.stash[SELECTION].folders:
        report.result.append(SuiteFolder.at(collector, suites_folder()))
    return report


def select(items: list[pytest.Item], config: pytest.Config) -> None:
    """Keep the tests that were selected."""
    selection = config.stash[SELECTION]
    unwanted = [item for item in items if not selection.wants(item)]
    if unwanted:
        config.hook.pytest_deselected(items=unwanted)
        items[:] = [item for item in items if selection.wants(item)]


def boot_first(items: list[pytest.Item]) -> None:
    """Put the suite ``boot`` before all others, image by image as pytest has grouped them; else change nothing."""
    if all(suite_of(item) != BOOT_SUITE for item in items):
        return
    images = list(dict.fromkeys(str(parameter(item, "image")) for item in items))
    items.sort(key=lambda item: (images.index(str(parameter(item, "image"))), suite_of(item) != BOOT_SUITE))


def _entries(folder: Path) -> Sequence[Path]:
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(_NOT_FOLDERS)]


def _is_shipped(argument: str, names: tuple[str, ...]) -> bool:
    path = argument.partition("::")[0]
    return path.partition("/")[0] in names and not Path(path).exists() and (suites_folder() / path).exists()


def _is_covered(argument: str, suites: tuple[str, ...]) -> bool:
    path = Path(argument.partition("::")[0]).absolute()
    return any(path.is_relative_to(suites_folder() / suite) for suite in suites)


def _import(path: Path, node: pytest.Collector) -> ModuleType:
    """Import a file of the suites under a name that no other module has, through pytest's assertion rewriting."""
    parts = path.relative_to(suites_folder()).with_suffix("").parts
    name = ".".join((SUITES_PACKAGE, *parts))
    for finder in sys.meta_path:
        spec = finder.find_spec(name, [str(path.parent)])
        if spec is not None and spec.loader is not None:
            break
    else:
        raise ImportError(f"{path} cannot be imported")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError) as error:
        del sys.modules[name]
        raise node.CollectError(str(pytest.ExceptionInfo.from_exception(error).getrepr(style="short"))) from error
    return module


def _refuse_hooks(module: ModuleType, node: pytest.Collector) -> None:
    hooks = [name for name in vars(module) if name.startswith("pytest_")]
    if hooks:
        raise node.CollectError(
            f"{module.__file__} has {', '.join(hooks)}: the conftest of a shipped suite can offer fixtures only"
        )
