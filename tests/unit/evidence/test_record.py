from __future__ import annotations

from pathlib import Path

import pytest

from pytest_bootc.evidence import EvidenceRecord
from pytest_bootc.evidence.record import MOST_BYTES, Circumstances, slug


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


def test_what_is_always_kept_is_kept_of_a_test_that_passed(tmp_path: Path) -> None:
    record = EvidenceRecord(tmp_path, "test_a")
    record.attach("always.svg", "x", always=True)
    record.attach("else.txt", "x")
    assert record.keep(failed=False) == [record.folder / "always.svg"]
    assert record.keep() == [record.folder / "else.txt"]


def test_a_test_keeps_no_more_than_20_mb(tmp_path: Path) -> None:
    record = EvidenceRecord(tmp_path, "test_a")
    record.attach("a.bin", bytes(MOST_BYTES - 1000))
    record.keep()
    record.attach("b.bin", bytes(1001))
    record.attach("c.bin", bytes(500))
    record.keep()
    assert (record.folder / "a.bin").stat().st_size == MOST_BYTES - 1000
    assert (record.folder / "b.bin").read_text().startswith("[left out: with its 1001 bytes")
    assert (record.folder / "c.bin").stat().st_size == 500
    record.attach("a.bin", "x" * 2000)
    record.attach("b.bin", bytes(1001))
    record.keep()
    assert (record.folder / "a.bin").stat().st_size == 2000, "what is written anew counts once"
    assert (record.folder / "b.bin").stat().st_size == 1001


def test_the_second_try_of_a_test_puts_the_first_ones_files_aside(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        record = EvidenceRecord(tmp_path, "test_a")
        record.begin(None, again=number > 1)
        record.attach("a.txt", str(number))
        record.keep()
    assert (record.folder / "a.txt").read_text() == "3"
    assert (record.folder / "first-try" / "a.txt").read_text() == "2"


def test_an_earlier_run_leaves_nothing(tmp_path: Path) -> None:
    record = EvidenceRecord(tmp_path, "test_a")
    record.attach("a.txt", "x")
    record.keep()
    EvidenceRecord(tmp_path, "test_a").begin(None)
    assert not record.folder.exists()


def test_without_a_machine_there_is_still_how_to_repeat_it(tmp_path: Path) -> None:
    record = EvidenceRecord(tmp_path, "test_a")
    record.begin(None)
    record.collect(None, Circumstances({"digest": "sha256:1", "notes": ""}, "pytest --image https://u:p@h test_a"))
    files = {path.name: path.read_text() for path in record.keep()}
    assert files.keys() == {"versions.txt", "reproduce.txt", "timeline.txt"}
    assert files["versions.txt"] == "digest: sha256:1\n"
    assert files["reproduce.txt"] == "pytest --image https://[hidden]@h test_a\n"
    assert files["timeline.txt"].splitlines()[1].split() == ["+0.00", "the", "test", "begins"]
