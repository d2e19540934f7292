"""The page docs/coverage.md: where each check of the suites runs here, what it needs, and what makes it fail.

A check is *covered* where it passes on a test image, whose programs come from packages: a break made of stand-ins is
shown, and does not count. One that is skipped for what no package here has (packages.toml says what that would be) is
named beside it; every other one is not covered.
"""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import breaking
import collecting
from breaking import Break
from collecting import Check

RED = Path(__file__).parent
INTRODUCTION = """\
# Coverage

<!-- Written by docs/generate.py from the suites, tests/red/outcomes and tests/red/breaks: run it again. -->

Each check of the shipped suites, where it runs in this project's own tests, and a command that makes it fail there
(`scripts/test --all` makes all of them, in `tests/red/breaks`). *Covered* are checks that pass on real software from
packages, in a virtual machine. The rest is skipped: for something that no package of Debian has, which is named, or for
something that the test images leave out (*not covered*); their breaks are made with stand-ins.
"""
_SHOWN = 60  # characters of a command


class State(StrEnum):
    """What became of a check."""

    COVERED = "covered"
    NAMED = "named"
    MISSING = "not covered"


@dataclass(frozen=True)
class Covered:
    """A check by its name, its state, where that is from, and what it was skipped for."""

    name: str
    state: State
    images: tuple[str, ...]
    lacks: tuple[str, ...]


def judge(name: str, outcomes: Mapping[str, Mapping[str, str]], packages: Mapping[str, str]) -> Covered:
    """Whether a check is covered, by its outcomes on the images and what is known of missing packages."""
    told = {image: checks[name] for image, checks in outcomes.items() if name in checks}
    passed = tuple(image for image, outcome in sorted(told.items()) if outcome == "passed")
    if passed:
        return Covered(name, State.COVERED, passed, ())
    lacks = {what for outcome in told.values() for what in _lacking(outcome, packages)}
    return Covered(name, State.NAMED if lacks else State.MISSING, tuple(sorted(told)), tuple(sorted(lacks)))


def _lacking(outcome: str, packages: Mapping[str, str]) -> Iterator[str]:
    """What a skipped check needs that can be had nowhere here; whatever else it needs, that is enough."""
    told = outcome.removeprefix("skipped: ").removeprefix("needs ")
    for word in (told, *re.split(r", (?=[a-z-]+:|[a-z]+$|an image)", told)):
        what = _package(word, packages)
        if what is not None:
            yield what


def _package(word: str, packages: Mapping[str, str]) -> str | None:
    return next((what for pattern, what in packages.items() if fnmatch.fnmatchcase(word, pattern)), None)


def covered_checks(checks: Iterable[str]) -> list[Covered]:
    """All of them, judged by the files of this folder."""
    outcomes = breaking.read_outcomes()
    packages: Mapping[str, str] = tomllib.loads((RED / "packages.toml").read_text())
    return [judge(name, outcomes, packages) for name in checks]


def share(judged: Sequence[Covered]) -> float:
    """Which part of the checks is covered, or skipped for something that exists nowhere here."""
    return sum(each.state is not State.MISSING for each in judged) / len(judged)


def page() -> str:
    """The text of docs/coverage.md."""
    checks = collecting.read()
    judged = covered_checks(checks)
    excused: Mapping[str, str] = tomllib.loads((RED / "excused.toml").read_text())
    failing: dict[str, list[Break]] = {}
    for each in breaking.read_breaks().values():
        if each.outcome == "failed":
            failing.setdefault(breaking.without_parameters(each.test), []).append(each)
    groups: dict[str, list[Covered]] = {}
    for one in judged:
        groups.setdefault(breaking.without_parameters(one.name), []).append(one)
    parts = [INTRODUCTION, _sums(judged)]
    for suite in sorted({name.partition("/")[0] for name in groups}):
        rows = [
            _row(name, rows, checks[rows[0].name], failing.get(name, ()), excused.get(name, ""))
            for name, rows in groups.items()
            if name.startswith(f"{suite}/")
        ]
        parts.append(f"## {suite}\n\n{table(('check', 'runs here', 'gate', 'made to fail by'), rows)}")
    return "\n".join(parts)


def _sums(judged: Sequence[Covered]) -> str:
    rows = []
    for suite in [*sorted({one.name.partition("/")[0] for one in judged}), ""]:
        of_suite = [one for one in judged if not suite or one.name.startswith(f"{suite}/")]
        counts = [sum(one.state is state for one in of_suite) for state in State]
        rows.append([suite or "all", str(len(of_suite)), *map(str, counts), f"{share(of_suite):.0%}"])
    head = ("suite", "checks", "covered", "skipped for a named package", "not covered", "covered or named")
    return table(head, rows)


def _row(name: str, rows: Sequence[Covered], check: Check, breaks: Sequence[Break], excuse: str) -> tuple[str, ...]:
    passed = [one for one in rows if one.state is State.COVERED]
    where = ", ".join(sorted({image for one in passed for image in one.images}))
    lacks = "; ".join(sorted({what for one in rows for what in one.lacks}))
    counted = f"{len(passed)} of {len(rows)}: " if passed and len(rows) > 1 else ""
    told = [f"{counted}{where}"] if passed else []
    told += [f"no: {lacks}"] if lacks else []
    told += ["not covered"] if any(one.state is State.MISSING for one in rows) else []
    gates = [*(f"`{word}`" for word in check.needs), *(f"image `{word}`" for word in check.images)]
    return (
        cell(name.partition("/")[2].replace("::", ": ")),
        cell(", ".join(told)),
        cell(", ".join(gates)),
        cell(_shown(breaks[0]) if breaks else excuse),
    )


def _shown(broken: Break) -> str:
    lines = [line for line in broken.do.strip().splitlines() if line and not line.startswith("#")]
    if not lines:
        return f"constants: {', '.join(broken.constants)}"
    first = lines[0] if len(lines) == 1 else f"{lines[0]} …"
    shown = first if len(first) <= _SHOWN else f"{first[:_SHOWN]}…"
    return f"`{shown.replace('`', chr(39))}`"


def cell(text: str) -> str:
    """A text for a cell of a table of Markdown."""
    return " ".join(text.split()).replace("|", r"\|")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown, of cells."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
