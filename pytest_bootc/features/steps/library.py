"""The register of the step library: what a phrase is, and how a step's text is matched with one.

A phrase is written as it is read: a field in quotes, backticks or slashes takes everything between them, any other
one a word, or several in double quotes; ``{n:int}`` and ``{n:number}`` take numbers. Nothing of this is known to
behave's own registry: a folder's own definitions are looked at first, and never collide with these.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any

from behave.matchers import Match, Matcher
from behave.model_type import Argument
from behave.step_registry import StepRegistry

Function = Callable[..., None]

_FIELD = re.compile(r"\{(\w+)(?::(\w+))?\}")
_WORD = r'"[^"]*"|[^\s"]\S*'
_BETWEEN = {'"': ".*", "`": ".+", "/": ".+"}
_PARTS = r"(?: of the (?:user )?unit \S+)?(?: with priority \w+ or worse)?(?: since the scenario began)?"
_NUMBERS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "int": (r"\d+", int),
    "number": (r"-?\d+(?:\.\d+)?", float),
    "parts": (_PARTS, str),
}


@dataclass(frozen=True)
class Phrase:
    """One sentence of the library: ``keyword`` (*Given*, *When*, *Then*) is how it is mostly used; any will do.

    ``constants`` are arguments that the sentence has by itself. ``group`` is the first line of the module's docstring.
    """

    keyword: str
    text: str
    function: Function
    constants: Mapping[str, object] = field(default_factory=dict)

    @property
    def meaning(self) -> str:
        """The function's docstring."""
        return inspect.getdoc(self.function) or ""

    @property
    def group(self) -> str:
        """What the phrases of the same module are about."""
        module = inspect.getmodule(self.function)
        return (inspect.getdoc(module) or "").partition("\n")[0].rstrip(".") if module is not None else ""

    @property
    def shown(self) -> str:
        """The sentence for people, without the kinds of fields."""
        return f"{self.keyword} {_FIELD.sub(_as_shown, self.text)}"


DEFINED: list[Phrase] = []


def given(text: str, **constants: object) -> Callable[[Function], Function]:
    """Define a phrase that prepares something."""
    return _defining("Given", text, constants)


def when(text: str, **constants: object) -> Callable[[Function], Function]:
    """Define a phrase that does something."""
    return _defining("When", text, constants)


def then(text: str, **constants: object) -> Callable[[Function], Function]:
    """Define a phrase that expects something."""
    return _defining("Then", text, constants)


def _defining(keyword: str, text: str, constants: Mapping[str, object]) -> Callable[[Function], Function]:
    def define(function: Function) -> Function:
        DEFINED.append(Phrase(keyword, text, function, constants))
        return function

    return define


class LibraryMatcher(Matcher):  # type: ignore[misc]  # behave has no types
    """A definition of the library, as behave uses one; compiled when a step first begins as it does."""

    NAME = "library"

    def __init__(self, phrase: Phrase) -> None:
        super().__init__(_bound(phrase), phrase.text, "step")
        self.phrase = phrase
        self._beginning = phrase.text.partition("{")[0]

    @property
    def regex_pattern(self) -> str:
        """The pattern as a regular expression."""
        return self._expression.pattern

    def compile(self) -> LibraryMatcher:
        """Make the regular expression now."""
        _ = self._expression
        return self

    def check_match(self, step_text: str) -> list[Argument] | None:
        """The arguments in a step's text, if it is one of these."""
        found = self._expression.fullmatch(step_text) if step_text.startswith(self._beginning) else None
        if found is None:
            return None
        return [
            Argument(found.start(name), found.end(name), found[name], self._converters[name](found[name]), name)
            for name in self._converters
        ]

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        pieces, end = [], 0
        for found in _FIELD.finditer(self.pattern):
            pieces.append(re.escape(self.pattern[end : found.start()]))
            pieces.append(f"(?P<{found[1]}>{_expression_of(self.pattern, found)})")
            end = found.end()
        return re.compile("".join((*pieces, re.escape(self.pattern[end:]))), re.DOTALL)

    @cached_property
    def _converters(self) -> Mapping[str, Callable[[str], object]]:
        return {found[1]: _converter_of(self.pattern, found) for found in _FIELD.finditer(self.pattern)}


class LayeredRegistry(StepRegistry):  # type: ignore[misc]  # behave has no types
    """A folder's own definitions, and behind them the library's."""

    def find_step_definition(self, step: Any) -> Any:
        """The definition of a step: the folder's own, if it has one."""
        return super().find_step_definition(step) or next(iter(definitions_of(step.name)), None)

    def find_match(self, step: Any) -> Match | None:
        """The definition of a step with its arguments: the folder's own, if it has one."""
        own = super().find_match(step)
        if own is not None:
            return own
        return next((found for each in matchers() if (found := each.match(step.name)) is not None), None)


_MATCHERS: list[LibraryMatcher] = []


def matchers() -> list[LibraryMatcher]:
    """The library's definitions, in the order in which they are looked at."""
    _MATCHERS.extend(LibraryMatcher(phrase) for phrase in DEFINED[len(_MATCHERS) :])
    return _MATCHERS


def definitions_of(text: str) -> Iterator[LibraryMatcher]:
    """The library's definitions that a step's text matches."""
    return (each for each in matchers() if each.match(text) is not None)


def grouped(phrases: Iterable[Phrase]) -> dict[str, list[Phrase]]:
    """Phrases by what they are about."""
    groups: dict[str, list[Phrase]] = {}
    for phrase in phrases:
        groups.setdefault(phrase.group, []).append(phrase)
    return groups


def _bound(phrase: Phrase) -> Function:
    if not phrase.constants:
        return phrase.function

    @wraps(phrase.function)
    def call(context: Any, **arguments: object) -> None:
        phrase.function(context, **arguments, **phrase.constants)

    return call


def _expression_of(pattern: str, found: re.Match[str]) -> str:
    if found[2]:
        return _NUMBERS[found[2]][0]
    return _BETWEEN.get(pattern[found.start() - 1 : found.start()], _WORD)


def _converter_of(pattern: str, found: re.Match[str]) -> Callable[[str], object]:
    if found[2]:
        return _NUMBERS[found[2]][1]
    return str if pattern[found.start() - 1 : found.start()] in _BETWEEN else _unquoted


def _unquoted(word: str) -> str:
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] == '"' else word


def _as_shown(found: re.Match[str]) -> str:
    return "{parts}" if found[2] == "parts" else f"{{{found[1]}}}"
