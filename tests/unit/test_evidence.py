from __future__ import annotations

from pathlib import Path

import pytest

from pytest_bootc.evidence import EvidenceRecord, journal_since, slug

JOURNAL = (
    "[    1.500000] vm kernel: one\n[    2.500000] vm kernel: two\n  more of two\n[   12.000000] vm systemd[1]: three\n"
)


def test_the_journal_is_cut_at_an_uptime() -> None:
    assert journal_since(JOURNAL, 0) == JOURNAL
    assert journal_since(JOURNAL, 2.5).startswith("[    2.500000] vm kernel: two\n  more of two\n")
    assert journal_since(JOURNAL, 2.6) == "[   12.000000] vm systemd[1]: three\n"


def test_where_nothing_happened_since_what_was_before_is_kept_and_said() -> None:
    assert journal_since(JOURNAL, 13) == f"[nothing since the test began; what was last before it:]\n{JOURNAL}"


@pytest.mark.parametrize("nodeid", ["a/test_b.py::test_c[x:y-1]", "../../etc/passwd", ".", "ü" * 300, "a" * 300])
def test_a_slug_is_a_file_name(nodeid: str) -> None:
    name = slug(nodeid)
    assert Path(name).name == name
    assert not name.startswith(".")
    assert len(name.encode()) < 150


def test_slugs_of_different_tests_differ() -> None:
    assert slug("test_a[b c]") != slug("test_a[b-c]")
    assert slug("a" * 300) != slug("a" * 301)


def test_files_stay_in_the_tests_folder(tmp_path: Path) -> None:
    record = EvidenceRecord(tmp_path, "test_a")
    record.attach("../../up.txt", "x")
    record.attach("bytes.bin", b"\xff")
    assert sorted(record.keep()) == [record.folder / "bytes.bin", record.folder / "up.txt"]
    assert (record.folder / "bytes.bin").read_bytes() == b"\xff"
    assert record.keep() == []


def test_nothing_is_written_before_it_is_to_be_kept(tmp_path: Path) -> None:
    record = EvidenceRecord(tmp_path, "test_a")
    record.attach("a.txt", "x")
    assert not record.folder.exists()
