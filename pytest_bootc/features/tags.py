"""What tags mean to pytest: each is a marker; some have a meaning of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from behave.model import ScenarioOutlineBuilder, Tag

from pytest_bootc.features import internals

#: Allure's words for how bad a failure is.
SEVERITIES = ("blocker", "critical", "normal", "minor", "trivial")

_LABEL = re.compile(r"allure\.label\.(\w+):(.+)")
_LINK = re.compile(r"allure\.link(?:\.(\w+))?:(.+)")
_ISSUE = re.compile(r"(?:allure\.)?(issue|tms):(.+)")
_WITH_VALUE = re.compile(r"(fixture|xdist_group|needs|image)\.(.+)")
# Markers of pytest that mean nothing, or something else, without arguments.
_RESERVED = frozenset(("parametrize", "usefixtures", "filterwarnings", "skipif", "tryfirst", "trylast"))


class TagReader:
    """Makes markers of tags, for one run of pytest."""

    def __init__(self, config: pytest.Config, *, labelled: bool) -> None:
        self._config = config
        self._labelled = labelled
        self._declared: set[str] = set()

    def marks(self, tags: Iterable[str]) -> list[pytest.MarkDecorator]:
        """The markers of a scenario with these tags."""
        return [mark for tag in sorted(set(tags)) for mark in self._marks_of(tag)]

    def _marks_of(self, tag: str) -> Iterator[pytest.MarkDecorator]:
        valued = _WITH_VALUE.fullmatch(tag)
        if valued is not None and valued[1] != "fixture":
            value = need_in(valued[2]) if valued[1] == "needs" else unquote(valued[2])
            yield getattr(pytest.mark, valued[1])(value)
            return
        allure = list(_allure_marks(tag)) if self._labelled else []
        yield from allure
        name = re.sub(r"\W", "_", tag).strip("_")
        if name and name not in _RESERVED and not _is_for_allure(tag):
            yield self._marker(name, tag)

    def _marker(self, name: str, tag: str) -> pytest.MarkDecorator:
        if name not in self._declared and name not in ("skip", "xfail"):
            self._declared.add(name)
            self._config.addinivalue_line("markers", f"{name}: the tag @{tag} of features")
        mark: pytest.MarkDecorator = getattr(pytest.mark, name)
        return mark


def tags_of(scenario: Any) -> set[str]:
    """The tags of a scenario, inherited ones included.

    behave leaves ``/``, ``%`` and the like out of the tags of an outline's row; what one needs keeps them here.
    """
    tags = set(scenario.effective_tags)
    row = internals.row_of(scenario)
    if row is None:
        return tags
    outline = scenario.parent
    examples = next(each for each in outline.examples if each.table and any(known is row for known in each.table))
    for written in (*outline.tags, *examples.tags):
        tag = ScenarioOutlineBuilder.render_template(written, row)
        if _WITH_VALUE.fullmatch(tag) and not ScenarioOutlineBuilder.is_parametrized_tag(tag):
            tags -= {Tag.make_name(tag, unescape=True)}
            tags.add(tag)
    return tags


def need_in(text: str) -> str:
    """The word of the marker ``needs`` that a tag means: ``unit.a.service`` and ``unit:a.service`` are one.

    What no tag can have is written as in addresses: ``%20`` is a space.
    """
    found = re.fullmatch(r"([^.:]+)[.:](.+)", text)
    return text if found is None else f"{found[1]}:{unquote(found[2])}"


def fixtures_in(tags: Iterable[str]) -> list[str]:
    """The names of fixtures that tags ask for: ``@fixture.NAME``."""
    found = (_WITH_VALUE.fullmatch(tag) for tag in sorted(set(tags)))
    return [match[2] for match in found if match is not None and match[1] == "fixture"]


def _is_for_allure(tag: str) -> bool:
    return bool(_LABEL.fullmatch(tag) or _LINK.fullmatch(tag) or _ISSUE.fullmatch(tag))


def _allure_marks(tag: str) -> Iterator[pytest.MarkDecorator]:
    if tag in SEVERITIES:
        yield pytest.mark.allure_label(tag, label_type="severity")
    if label := _LABEL.fullmatch(tag):
        yield pytest.mark.allure_label(label[2], label_type=label[1])
    if link := _LINK.fullmatch(tag):
        yield pytest.mark.allure_link(link[2], link_type="link", name=link[1] or link[2])
    if issue := _ISSUE.fullmatch(tag):
        yield pytest.mark.allure_link(issue[2], link_type=issue[1], name=issue[2])
