"""The rules of the house, read off the source: layers, owners of libraries, sizes, and where time may be slept."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pytest_bootc"

# By module or sub-package; imports go to a lower layer, or stay within the same module or sub-package.
LAYERS: dict[str, int] = {
    "errors": 0, "deadline": 0, "command": 0, "progress": 0, "cpio": 0,
    "image": 1, "model": 1, "timeline": 1, "locking": 1,
    "manifest": 2, "source": 2, "layout": 2, "registry": 2, "podman": 2, "shell": 2, "ssh": 2,
    "cache": 2,
    "disk": 3, "machine": 3, "capabilities": 3, "deployment": 3, "journal": 3, "system": 3, "units": 3, "health": 3,
    "guest": 4,
    "alarm": 4, "evidence": 5, "verdict": 5, "exemptions": 5,
    "reports": 6, "compat": 6, "features": 6,
    "options": 7, "configuration": 7, "collection": 7, "run": 7, "circumstances": 7, "judging": 7,
    "guarding": 7, "renewal": 7, "retrying": 7, "tracebacks": 7, "gates": 7, "needs": 7, "hooks": 7, "item_hooks": 7,
    "feature_hooks": 7, "scheduling": 7, "serial": 7, "workers": 7,
    "fixtures": 7, "plugin": 7, "cli": 7, "disk_commands": 7, "vm_commands": 7, "step_commands": 7,
}  # fmt: skip

# What stands beside its layer's others, and is the ground of some of them.
GROUND = {
    "errors": {"deadline", "command"},
    "deadline": {"command"},
    "image": {"model"},
    "source": {"layout", "registry", "podman"},
    "manifest": {"layout", "registry", "podman"},
    "layout": {"podman"},
    "shell": {"ssh"},
    "capabilities": {"system"},
    "journal": {"health"},
    "system": {"health"},
    "units": {"health"},
    "health": {"machine"},
    "compat": {"features"},
    "reports": {"features"},
}

OWNERS = {
    "subprocess": {"command", "machine.supervisor"},
    "oras": {"registry"},
    "requests": {"registry"},
    "urllib3": {"registry"},
    "paramiko": {"ssh"},
    "allure": {"reports.allure"},
    "allure_commons": {"reports.allure"},
    "behave": {"features"},
    "yaml": {"features"},
    "_pytest": {"compat"},
}

# The supervisor runs as a program of its own: it imports nothing of ours.
ALONE = {"machine.supervisor"}
MAY_IMPORT_LATE = {"fixtures", "plugin", "cli"}
MAY_LOAD_BY_NAME = {"machine.base", "source"}
MAY_SLEEP = {"deadline", "machine.supervisor"}
SWITCHBOARDS = {"plugin", "hooks", "item_hooks", "feature_hooks"}
# Each holds the private names of one library.
PRIVATE = {"compat", "features.internals"}


@cache
def modules() -> list[str]:
    return sorted(
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if "suites" not in path.relative_to(PACKAGE).parts
    )


@cache
def source(module: str) -> str:
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text()


@cache
def tree(module: str) -> ast.Module:
    parsed = ast.parse(source(module))
    for node in ast.walk(parsed):
        for child in ast.iter_child_nodes(node):
            child.parent = node  # type: ignore[attr-defined]
    return parsed


def part(module: str) -> str:
    """The module or sub-package of the layer table."""
    return module.partition(".")[0]


def imports(nodes: ast.AST, *, late: bool | None = None) -> Iterator[str]:
    """What is imported for running, not for types only; at the top (``late=False``), inside functions, or both."""
    for node in ast.walk(nodes):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        above = list(ancestors(node))
        if any(isinstance(up, ast.If) and "TYPE_CHECKING" in ast.unparse(up.test) for up in above):
            continue
        inside = any(isinstance(up, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) for up in above)
        if late is None or late is inside:
            yield from imported(node)


def ancestors(node: ast.AST) -> Iterator[ast.AST]:
    while (node := getattr(node, "parent", None)) is not None:  # type: ignore[assignment]
        yield node


def imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (name.name for name in node.names)
        return
    assert node.level == 0, "imports are absolute"
    for name in node.names:
        whole = f"{node.module}.{name.name}"
        yield whole if whole.removeprefix("pytest_bootc.") in modules() else node.module or ""


def ours(names: Iterator[str]) -> set[str]:
    return {name.removeprefix("pytest_bootc.") for name in names if name.startswith("pytest_bootc.")}


@pytest.mark.parametrize("module", modules())
def test_imports_point_down(module: str) -> None:
    here = part(module)
    if here == "__init__":
        return
    assert here in LAYERS, f"give {here} a layer"
    for target in ours(imports(tree(module))):
        there = part(target)
        if there == here:
            continue
        down = LAYERS[there] < LAYERS[here] or here in GROUND.get(there, ())
        beside = LAYERS[there] == LAYERS[here] == 7
        assert down or beside, f"{module} (layer {LAYERS[here]}) imports {target} (layer {LAYERS[there]})"


def test_there_are_no_cycles() -> None:
    graph = {module: ours(imports(tree(module), late=False)) & set(modules()) for module in modules()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module in done:
            return
        for target in graph[module]:
            visit(target, (*path, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def test_the_layer_table_names_what_is_there() -> None:
    assert set(LAYERS) == {part(module) for module in modules()} - {"__init__"}


@pytest.mark.parametrize("module", modules())
def test_each_library_has_one_owner(module: str) -> None:
    used = {name.partition(".")[0] for name in imports(tree(module))}
    for library, owners in OWNERS.items():
        if library in used:
            assert module in owners or part(module) in owners, f"{module} imports {library}"


@pytest.mark.parametrize("module", modules())
def test_pytest_stays_at_the_top(module: str) -> None:
    if "pytest" in {name.partition(".")[0] for name in imports(tree(module))}:
        assert LAYERS[part(module)] >= 6, f"{module} has to run without pytest"


@pytest.mark.parametrize("module", modules())
def test_nothing_is_imported_late(module: str) -> None:
    if module not in MAY_IMPORT_LATE:
        assert not list(imports(tree(module), late=True))
    if "import_module" in source(module):
        assert module in MAY_LOAD_BY_NAME


@pytest.mark.parametrize("module", sorted(ALONE))
def test_what_stands_alone(module: str) -> None:
    names = {name.partition(".")[0] for name in imports(tree(module))}
    assert names <= sys.stdlib_module_names


@pytest.mark.parametrize("module", modules())
def test_nobody_sleeps_without_a_deadline(module: str) -> None:
    if module not in MAY_SLEEP:
        calls = {ast.unparse(node.func) for node in ast.walk(tree(module)) if isinstance(node, ast.Call)}
        assert not calls & {"time.sleep", "sleep"}


@pytest.mark.parametrize("module", modules())
def test_sizes(module: str) -> None:
    assert len(source(module).splitlines()) < 400
    for node in ast.walk(tree(module)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        assert node.end_lineno is not None
        assert node.end_lineno - node.lineno < 50, f"{module}.{node.name} is too long"
        names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        taken = len(names) - (names[:1] in (["self"], ["cls"]))
        assert taken <= 6, f"{module}.{node.name} takes {taken} arguments"


@pytest.mark.parametrize("module", sorted(SWITCHBOARDS))
def test_the_plugin_is_a_switchboard(module: str) -> None:
    assert len(source(module).splitlines()) <= 150
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("pytest_"):
            first = node.body[1] if isinstance(node.body[0], ast.Expr) and ast.get_docstring(node) else node.body[0]
            lines = source(module).splitlines()[first.lineno - 1 : node.end_lineno]
            assert len([line for line in lines if line.strip()]) <= 4, f"{module}.{node.name} does something itself"


def test_private_names_of_pytest_and_behave_are_in_one_place_each() -> None:
    # Whatever a module takes from outside and begins with an underscore can only be theirs up there.
    for module in modules():
        if module in PRIVATE or LAYERS.get(part(module), 0) < 6:
            continue
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Attribute) and re.match(r"_[^_]", node.attr):
                assert ast.unparse(node.value) in ("self", "cls"), f"{module}: {ast.unparse(node)}"
