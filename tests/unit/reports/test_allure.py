from __future__ import annotations

from pathlib import Path

from pytest_bootc.reports.allure import Plain, write_run_files


def test_texts_are_shown_without_quotes() -> None:
    assert repr(Plain("sha256:00")) == "sha256:00"


def test_properties_are_escaped_as_java_reads_them(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "results"
    write_run_files(folder, {"a b:c": "C:\\x\ny", "plain": "= as it is"})
    assert (folder / "environment.properties").read_text() == "a\\ b\\:c = C:\\\\x\\ny\nplain = = as it is\n"
