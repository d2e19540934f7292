"""The command `pytest-bootc steps`: the sentences that features can be written in without any Python."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Iterable

from pytest_bootc.features.steps import PHRASES, Phrase, grouped

Say = Callable[[str], None]

_WIDTH = 110


def show(options: argparse.Namespace, say: Say) -> int | None:
    """List the phrases that have a word in them, in what they mean or in their group's name; 1 if there are none."""
    chosen = [phrase for phrase in PHRASES if _has(phrase, _plain(options.grep))]
    for name, phrases in grouped(chosen).items():
        say(f"{name}\n")
        for meaning, shown in by_meaning(phrases):
            say("\n".join(f"  {line}" for line in shown))
            say(
                textwrap.fill(meaning.replace("``", "`"), _WIDTH, initial_indent="      ", subsequent_indent="      ")
                + "\n"
            )
    if not chosen:
        say(f"no step has {options.grep!r} in it")
    return None if chosen else 1


def by_meaning(phrases: Iterable[Phrase]) -> list[tuple[str, list[str]]]:
    """The sentences that mean the same, with what they mean in one paragraph."""
    found: dict[object, tuple[str, list[str]]] = {}
    for phrase in phrases:
        found.setdefault(phrase.function, (" ".join(phrase.meaning.split()), []))[1].append(phrase.shown)
    # Decorators run from the last to the first.
    return [(meaning, shown[::-1]) for meaning, shown in found.values()]


def _has(phrase: Phrase, word: str) -> bool:
    return any(word in _plain(text) for text in (phrase.shown, phrase.meaning, phrase.group))


def _plain(text: str) -> str:
    return text.casefold().replace("-", "")
