"""What tags become."""

from __future__ import annotations

import pytest

from pytest_bootc.features.tags import TagReader, fixtures_in


def read(config: pytest.Config, *tags: str, labelled: bool = True) -> list[tuple[str, tuple[object, ...], object]]:
    marks = TagReader(config, labelled=labelled).marks(tags)
    return [(mark.name, mark.args, mark.kwargs.get("label_type", mark.kwargs.get("link_type"))) for mark in marks]


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("smoke", "smoke"),
        ("a.b-c=d:e", "a_b_c_d_e"),
        ("skip", "skip"),
        ("_inner_", "inner"),
        ("Größe", "Größe"),
        ("12", "12"),
    ],
)
def test_a_tag_is_a_marker(pytestconfig: pytest.Config, tag: str, name: str) -> None:
    assert read(pytestconfig, tag) == [(name, (), None)]


@pytest.mark.parametrize("tag", ["parametrize", "usefixtures", "skipif", "-", "_"])
def test_tags_that_pytest_could_not_bear(pytestconfig: pytest.Config, tag: str) -> None:
    assert read(pytestconfig, tag) == []


def test_tags_with_values(pytestconfig: pytest.Config) -> None:
    assert read(pytestconfig, "needs.program:podman", "xdist_group.one") == [
        ("needs", ("program:podman",), None),
        ("xdist_group", ("one",), None),
    ]


def test_tags_for_allure(pytestconfig: pytest.Config) -> None:
    tags = ("critical", "allure.label.epic:Desktop", "issue:12", "allure.tms:7", "allure.link:https://example.org")
    assert read(pytestconfig, *tags) == [
        ("allure_label", ("Desktop",), "epic"),
        ("allure_link", ("https://example.org",), "link"),
        ("allure_link", ("7",), "tms"),
        ("allure_label", ("critical",), "severity"),
        ("critical", (), None),
        ("allure_link", ("12",), "issue"),
    ]
    assert read(pytestconfig, *tags, labelled=False) == [("critical", (), None)]


def test_fixtures() -> None:
    assert fixtures_in(["smoke", "fixture.vm", "fixture.browser.firefox", "fixture."]) == ["browser.firefox", "vm"]
