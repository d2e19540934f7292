from __future__ import annotations

from pathlib import Path

import pytest

from pytest_bootc.reports.allure import Plain, name_without, write_run_files


def test_texts_are_shown_without_quotes() -> None:
    assert repr(Plain("sha256:00")) == "sha256:00"


def test_properties_are_escaped_as_java_reads_them(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "results"
    write_run_files(folder, {"a b:c": "C:\\x\ny", "plain": "= as it is"})
    assert (folder / "environment.properties").read_text() == "a\\ b\\:c = C:\\\\x\\ny\nplain = = as it is\n"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("test_it[server:v1]", "test_it"),
        ("test_it[server:v1-a b]", "test_it[a b]"),
        ("test_it[a-server:v1-b]", "test_it[a-b]"),
        ("test_it[a-server:v1]", "test_it[a]"),
        ("test_it[server:v10]", "test_it[server:v10]"),
        ("test_it[a]", "test_it[a]"),
        ("test_it", "test_it"),
        ("Open server:v1", "Open server:v1"),
    ],
)
def test_names_do_not_repeat_what_is_judged(name: str, shown: str) -> None:
    assert name_without(name, "server:v1") == shown
    assert name_without(name, "") == name
