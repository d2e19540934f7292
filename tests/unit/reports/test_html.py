from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_bootc.command import CommandError
from pytest_bootc.errors import BootcTestError, ConfigError
from pytest_bootc.progress import Silent
from pytest_bootc.reports.html import ReportRequest, cleaned, make_report

PAGE = """<!DOCTYPE html>
<html>
<head lang="en">
    <meta charset="utf-8">
</head>
<body>
    <script src="app.js"></script>
    <a href="#top">top</a>
    <script>const text = "https://example.org is a text";</script>
    {more}
</body>
</html>
"""
TAG_MANAGER = """<script async src="https://www.googletagmanager.com/gtag/js?id=G-X"></script>
    <script>
        window.dataLayer = window.dataLayer || [];
        gtag('config', 'G-X');
    </script>"""


def test_counters_are_taken_out() -> None:
    page = cleaned(PAGE.format(more=TAG_MANAGER), "index.html")
    for word in ("googletagmanager", "gtag", "dataLayer"):
        assert word not in page
    assert "example.org is a text" in page
    assert page.count("<script") == 2
    assert page.count("default-src 'self'") == 1
    assert page.index("Content-Security-Policy") < page.index("charset")


@pytest.mark.parametrize(
    "tag",
    [
        "<script src=//cdn.example/x.js></script>",
        "<SCRIPT type='module' SRC='http://cdn.example/x.js'>1</SCRIPT>",
    ],
)
def test_other_scripts_from_elsewhere_too(tag: str) -> None:
    assert "cdn.example" not in cleaned(PAGE.format(more=tag), "index.html")


@pytest.mark.parametrize(
    "tag",
    [
        '<link rel="stylesheet" href="https://cdn.example/x.css">',
        "<img alt='' src='http://cdn.example/x.png'>",
        '<iframe\nsrc = "//cdn.example/x"></iframe>',
        '<script src="https://cdn.example/x.js">',
    ],
)
def test_what_else_is_loaded_from_elsewhere_is_an_error(tag: str) -> None:
    with pytest.raises(CommandError) as caught:
        cleaned(PAGE.format(more=tag), "index.html")
    assert "cdn.example/x" in caught.value.brief
    assert "allure 3." in caught.value.resolution


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "1-result.json").write_text(json.dumps({"fullName": "a#b", "start": 1}))
    return folder


def refusal(results: Path, output: Path, history: Path) -> BootcTestError:
    with pytest.raises(BootcTestError) as caught:
        make_report(ReportRequest((results,), output, history), Silent())
    return caught.value


def test_no_results(tmp_path: Path) -> None:
    missing = refusal(tmp_path / "none", tmp_path / "out", tmp_path / "history")
    assert isinstance(missing, ConfigError)
    assert (missing.brief, missing.resolution) == (
        f"there is no folder {tmp_path / 'none'}",
        f"make some: pytest --image REF --alluredir {tmp_path / 'none'}",
    )
    (tmp_path / "none").mkdir()
    assert refusal(tmp_path / "none", tmp_path / "out", tmp_path / "history").brief.endswith("has no results of Allure")
    (tmp_path / "none" / "1-result.json").write_text("{")
    assert "is no result of Allure" in refusal(tmp_path / "none", tmp_path / "out", tmp_path / "history").brief
    assert not (tmp_path / "out").exists()


def test_the_output_must_not_swallow_the_results(results: Path) -> None:
    for output in (results, results.parent):
        assert "which the report would replace" in refusal(results, output, results.parent / "history").brief
    assert (results / "1-result.json").exists()


def test_a_folder_that_is_no_report_is_not_replaced(results: Path, tmp_path: Path) -> None:
    output = tmp_path / "home"
    output.mkdir()
    for name in ("letter.txt", "index.html"):
        (output / name).write_bytes(b"\xff mine")
        assert "is no report" in refusal(results, output, tmp_path / "history").brief
        assert (output / name).read_bytes() == b"\xff mine"
    assert "is no report" in refusal(results, output / "letter.txt", tmp_path / "history").brief
