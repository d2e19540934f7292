"""The step library as a whole: every sentence is told, and no two mean the same text."""

from __future__ import annotations

import ast
import inspect
import re
import types

import pytest

from pytest_bootc.features.steps import GROUPS, PHRASES, Phrase, definitions_of, grouped

_SAMPLES = {"int": "5", "number": "5.5", "parts": " of the unit a.service since the scenario began"}


def sample(phrase: Phrase) -> str:
    """A step that the phrase matches."""
    return re.sub(r"\{(\w+)(?::(\w+))?\}", lambda field: _SAMPLES.get(field[2], field[1]), phrase.text)


@pytest.mark.parametrize("phrase", PHRASES, ids=lambda phrase: phrase.text)
def test_each_phrase_matches_its_own_text_alone(phrase: Phrase) -> None:
    matching = [each.phrase.text for each in definitions_of(sample(phrase))]
    assert matching == [phrase.text]


@pytest.mark.parametrize("phrase", PHRASES, ids=lambda phrase: phrase.text)
def test_each_phrase_is_told(phrase: Phrase) -> None:
    assert phrase.meaning.endswith(".")
    assert len(phrase.meaning) < 400
    fields = set(re.findall(r"\{(\w+)", phrase.text)) | set(phrase.constants)
    takes = inspect.signature(phrase.function).parameters
    if not any(each.kind is each.VAR_KEYWORD for each in takes.values()):
        assert fields == set(takes) - {"context"}


def test_phrases_are_unique() -> None:
    texts = [phrase.text for phrase in PHRASES]
    assert sorted(texts) == sorted(set(texts))


def test_the_groups_are_the_modules() -> None:
    titles = [(inspect.getdoc(module) or "").partition("\n")[0].rstrip(".") for module in GROUPS]
    assert set(grouped(PHRASES)) == set(titles)
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize("module", GROUPS, ids=lambda module: module.__name__)
def test_nothing_is_asserted_without_words(module: types.ModuleType) -> None:
    """A bare assertion would be plain in a library that nobody rewrites assertions of."""
    tree = ast.parse(inspect.getsource(module))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
