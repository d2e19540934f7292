#!/usr/bin/env python3
"""Write the pages that are made from code, docstrings, suites and tests: `.venv/bin/python docs/generate.py [PAGE...]`.

tests/test_docs.py fails where a committed page is another one than this makes.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from pytest_bootc import cli, errors, options, step_commands
from pytest_bootc.features.steps import GROUPS, PHRASES, grouped
from pytest_bootc.verdict import ExitStatus, State, table

DOCS = Path(__file__).parent
# What tells of the tests lives with them.
sys.path.append(str(DOCS.parent / "tests" / "red"))
_covering: Any = import_module("covering")
_cell: Callable[[str], str] = _covering.cell
_table: Callable[[Sequence[str], Sequence[Sequence[str]]], str] = _covering.table
PACKAGE = DOCS.parent / "pytest_bootc"

Function = ast.FunctionDef

#: What a test author meets, by module: classes with methods first, then values.
CLASSES = {
    "shell": ("ShellVerbs", "CommandResult"),
    "ssh/session": ("SSHSession",),
    "guest": ("Guest",),
    "machine/pool": ("VM",),
    "evidence/record": ("EvidenceRecord",),
    "guarding": ("Exempting",),
    "deadline": ("Deadline",),
}
VALUES = {
    "units": ("Unit", "Job"),
    "journal": ("JournalEntry", "Coredump"),
    "system": ("GuestFacts", "Mount", "Package"),
    "capabilities": ("FileCapabilities",),
    "deployment": ("Deployment", "DeploymentEntry"),
    "model": ("MachineSpec", "MachineFacts", "ResolvedImage", "LiveDisk", "DiskFile"),
}
#: Public within the package, and nothing for a test.
INNER = {
    "VM": {"use", "release", "after_each_boot", "running", "machine", "keepalive", "login_deadline"},
    "SSHSession": {"connect", "close", "interrupt", "reconnect"},
    "EvidenceRecord": {"begin", "collect", "keep"},
    "FileCapabilities": {"from_xattr", "from_text"},
}
STEPS = """\
# Steps

<!-- Written by docs/generate.py from the code: change that, and run it again. -->

What every folder of features can say without any Python ([how](how-to.md#write-a-scenario-without-python)); also
`pytest-bootc steps`, and `pytest-bootc steps --grep WORD`. Any keyword will do where *Given*, *When* or *Then* is
written here. A field is a word, or several in double quotes: `the file "/etc/two words" exists`; in quotes, backticks
or slashes it is everything between them. A folder's own definitions come first.
"""
INTRODUCTION = """\
# Reference

<!-- Written by docs/generate.py from the code: change that, and run it again. -->

Seconds are floats, sizes are in the units that the text names. `Command` is a line of shell (`str`), or the words of
one command (a sequence of `str`), which are then quoted. `Deadline` is a point in time, see [below](#deadline).
"""
STATUSES = {
    ExitStatus.GOOD: "the image is good: every subject was judged by at least one test, and nothing is red",
    ExitStatus.BAD_IMAGE: "the image failed, or something passed only when it was tried again (flaky)",
    ExitStatus.INTERRUPTED: "the run was interrupted or cut off, or a test file could not be collected",
    ExitStatus.INTERNAL_ERROR: "pytest or a plugin broke (pytest's own)",
    ExitStatus.USAGE: "the run was asked for something that it cannot do: options, references, missing programs",
    ExitStatus.NOTHING_RAN: "a subject was judged by no test, or by none of a suite that was asked for: all skipped",
    ExitStatus.LAB_TROUBLE: "only the laboratory failed; nothing is known about the image. Only this is worth a retry",
}
STATES = {
    State.PASS: "the test passed",
    State.SKIP: "the test did not judge: an unmet need, or a skip of its own",
    State.FAIL: "the image did not do what was expected",
    State.FLAKY: "the test passed only when it was tried again; as red as a failure",
    State.INFRA: "the laboratory failed; pytest and Allure show an error (broken), the terminal INFRA",
    State.USAGE: "the run was asked for something impossible",
}


def reference() -> str:
    """The whole page."""
    parts = [INTRODUCTION, _options(), _verdicts(), _fixtures(), _marker(), _commands(), _errors()]
    parts += [_heading("The machine and its guest"), *_classes(CLASSES)]
    parts += [_heading("Values"), *_classes(VALUES)]
    return "\n".join(parts)


def steps() -> str:
    """The page of the step library."""
    notes = {}
    for module in GROUPS:
        title, _, rest = (inspect.getdoc(module) or "").partition("\n")
        notes[title.rstrip(".")] = _markdown(rest)
    parts = [STEPS]
    for name, phrases in grouped(PHRASES).items():
        parts += [_heading(name), *([f"{notes[name]}\n"] if notes[name] else [])]
        for meaning, shown in step_commands.by_meaning(phrases):
            text = "\n".join(shown)
            parts.append(f"```gherkin\n{text}\n```\n\n{_markdown(meaning)}\n")
    return "\n".join(parts)


def _heading(title: str) -> str:
    return f"## {title}\n"


def _options() -> str:
    rows = [
        (
            f"`{option.flag} {option.metavar}`".replace(" `", "`"),
            f"{_cell(option.help)}{'.' if not option.help.endswith('.') else ''}",
            f"`{option.dest}`",
            f"`{option.variable}`",
        )
        for option in options.OPTIONS
    ]
    text = (
        "The command line wins over the environment, the environment over the ini file. What may be repeated is a list "
        "in the ini file, and words between spaces or commas in the variable.\n"
    )
    return f"{_heading('Options')}\n{text}\n{_table(('option', 'meaning', 'ini key', 'variable'), rows)}"


def _verdicts() -> str:
    statuses = [(str(int(status)), STATUSES[status]) for status in ExitStatus]
    states = [(f"`{state.value}`", STATES[state]) for state in STATES]
    assert set(STATES) == set(State)
    return "\n".join(
        (
            _heading("Verdicts and exit statuses"),
            _table(("exit status", "meaning"), statuses),
            "These are for runs that judge something; all others end as pytest does. A test has one of these states, "
            "which the reports carry as the property `state`:\n",
            _table(("state", "meaning"), states),
            "How a test is shown whose heaviest phase ended so, and the exit status of a run that had nothing heavier "
            "(an error of the teardown is shown beside what the call was shown as):\n",
            _table(("state", "phase", "terminal", "JUnit", "Allure", "exit status"), _cells()),
        )
    )


def _cells() -> list[tuple[str, ...]]:
    return [
        (
            f"`{cell.state.value}`",
            cell.phase,
            f"`{cell.shown.letter}` {cell.shown.word}",
            f"`{cell.shown.junit}`" if cell.shown.junit else "no element",
            cell.shown.allure,
            str(int(cell.status)),
        )
        for cell in table()
    ]


def _fixtures() -> str:
    rows = []
    for node in _module("fixtures").body:
        if isinstance(node, Function) and node.decorator_list:
            scope = re.search(r"scope='(\w+)'", ast.unparse(node.decorator_list[0]))
            assert node.returns is not None
            value = re.sub(r"^Iterator\[(.*)\]$", r"\1", ast.unparse(node.returns))
            rows.append((f"`{node.name}`", f"`{value}`".replace("|", r"\|"), scope[1] if scope else "function",
                         _cell(_markdown(_doc(node)))))  # fmt: skip
    text = "Each can be overridden in a conftest.\n"
    return f"{_heading('Fixtures')}\n{text}\n{_table(('fixture', 'value', 'scope', 'what it is'), rows)}"


def _marker() -> str:
    parts = [_heading("Markers")]
    for declared in options.MARKERS:
        signature, _, text = declared.partition(": ")
        parts.append(f"`@pytest.mark.{signature}`: {text}.\n")
    return "\n".join(parts)


def _commands() -> str:
    whole = cli.parser()
    parts = [
        _heading(f"The command {whole.prog}"),
        "Its exit statuses are those of runs; a mistake in its options gives 2.\n",
    ]
    for command in _leaves(whole):
        rows = [
            (_argument(action), f"{_cell(action.help or '')}.") for action in command._actions if action.dest != "help"
        ]
        parts += [f"### {command.prog}\n", f"{command.description}\n", _table(("argument", "meaning"), rows)]
    return "\n".join(parts)


def _leaves(command: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The commands that do something: those that have no sub-commands."""
    below = [action.choices for action in command._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield command
    for choices in below:
        for choice in choices.values():
            yield from _leaves(choice)


def _argument(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 or action.metavar is None else f"{action.metavar}"
    if action.option_strings:
        return ", ".join(f"`{option} {value}`".replace(" `", "`") for option in action.option_strings)
    return f"`{value}`{', one or more' if action.nargs == '+' else ''}"


def _errors() -> str:
    drawing = re.search(r"::\n\n((?: {4}.*\n)+)", errors.__doc__ or "")
    assert drawing is not None
    rest = (errors.__doc__ or "")[drawing.end() :]
    tree = re.sub(r"(?m)^ {4}", "", drawing[1])
    return f"{_heading('Errors')}\n```text\n{tree}```\n\n{_markdown(rest)}\n"


def _classes(table: dict[str, tuple[str, ...]]) -> Iterator[str]:
    for module, names in table.items():
        nodes = {node.name: node for node in _module(module).body if isinstance(node, ast.ClassDef)}
        for name in names:
            yield _class(nodes[name], module)


def _class(node: ast.ClassDef, module: str) -> str:
    path = f"pytest_bootc.{module.replace('/', '.')}"
    fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    lines = [f"### {node.name}\n", f"`from {path} import {node.name}`\n", f"{_markdown(_doc(node))}\n"]
    bases = [ast.unparse(base) for base in node.bases if ast.unparse(base) not in ("ABC", "Protocol")]
    if bases:
        lines.append(f"It has what `{'`, `'.join(bases)}` has, and:\n")
    if fields:
        told = "\n".join(f"{_field(part)}" for part in fields)
        lines.append(f"```python\n{told}\n```\n")
    for method in node.body:
        if isinstance(method, Function) and not method.name.startswith("_"):
            if method.name in INNER.get(node.name, ()):
                continue
            lines.append(_method(method))
    return "\n".join(lines)


def _field(node: ast.AnnAssign) -> str:
    default = "" if node.value is None else ast.unparse(node.value)
    found = re.search(r"default=([^,)]+)|default_factory=(\w+)", default)
    if default.startswith("field("):
        default = "" if found is None else found[1] or f"{found[2]}()"
    return f"{ast.unparse(node.target)}: {ast.unparse(node.annotation)}{default and f' = {default}'}"


def _method(node: Function) -> str:
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if decorators & {"property", "cached_property"}:
        signature = f"{node.name}{result.replace(' ->', ':')}"
    else:
        arguments = re.sub(r"^(self|cls)(, )?", "", ast.unparse(node.args))
        arguments = re.sub(r"(: [^,=]+)=", r"\1 = ", arguments)
        signature = f"{node.name}({arguments}){result}"
    return f"#### `{signature}`\n\n{_markdown(_doc(node))}\n"


def _module(name: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{name}.py").read_text())


def _doc(node: ast.ClassDef | Function) -> str:
    text = ast.get_docstring(node)
    assert text, f"{node.name} has no docstring"
    return text


def _markdown(text: str) -> str:
    """What docstrings have of reStructuredText, as Markdown."""
    replaced: Sequence[tuple[str, str | Callable[[re.Match[str]], str]]] = (
        (r":(?:class|meth|attr|data|func|mod):`~?([^`]+)`", lambda m: f"`{m[1].removeprefix('pytest_bootc.')}`"),
        (r"``([^`]+)``", r"`\1`"),
        (r"(?m)^:raises ([\w.]+): ", r"- Raises `\1`: "),
    )
    for pattern, replacement in replaced:
        text = re.sub(pattern, replacement, text)
    return text.strip()


#: What makes each page.
PAGES = {"reference.md": reference, "steps.md": steps, "coverage.md": _covering.page}

if __name__ == "__main__":
    for name in sys.argv[1:] or PAGES:
        (DOCS / name).write_text(PAGES[name]())
