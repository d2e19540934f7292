"""The HTML report: made by `allure` from the results that tests left, and freed of what loads from elsewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_bootc.cache import Cache, default_home
from pytest_bootc.command import CommandError, run
from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import ConfigError, DiskError
from pytest_bootc.progress import Progress
from pytest_bootc.reports.generator import VERSION, Generator, find_generator

_SETTINGS = Path(__file__).with_name("allurerc.json")
_SECONDS = 1800.0
_ATTACHMENTS = "data"
_PAGE = "index.html"

# By its mark a folder is known as a report, which may be replaced. The policy keeps the page, and what a guest's
# evidence may bring into it, from loading anything from elsewhere.
_MARK = '<meta name="generator" content="pytest-bootc">'
_POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="'
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; form-action 'none'\">"
)
_FOREIGN_SCRIPT = re.compile(r"<script\b[^>]*\bsrc\s*=\s*[\"']?(?:https?:)?//[^>]*>.*?</script\s*>\s*", re.I | re.S)
_COUNTER = re.compile(r"<script>(?:(?!</script).)*?\bwindow\.dataLayer\b.*?</script\s*>\s*", re.I | re.S)
_LOADS = re.compile(r"<[a-z][^<>]*\b(?:src|href|srcset|data|action)\s*=\s*[\"']?\s*((?:https?:)?//[^\s\"'<>]+)", re.I)


@dataclass(frozen=True)
class ReportRequest:
    """What report is wanted. ``name`` is its title; empty: what was judged."""

    results: tuple[Path, ...]
    output: Path
    history: Path
    single_file: bool = False
    name: str = ""


def make_report(request: ReportRequest, progress: Progress) -> Path:
    """Make the report, put it in place at once, and add a line to the history; the path of its first page.

    :raises ConfigError: there are no results, the output folder holds something else, the history cannot be read,
        or a program is missing.
    :raises CommandError: `npm` or `allure` failed.
    :raises DiskError: the cache cannot be written.
    """
    results = [result for folder in request.results for result in _results(folder)]
    _check_output(request)
    generator = find_generator(Cache(default_home()), progress)
    with _host_trouble(request.output), _staging(request) as (work, history):
        history.write_bytes(b"".join(_history_without(request.history, results)))
        made = work / request.output.name
        settings = _settings(request, history, request.name or _title(results))
        (work / "allurerc.json").write_text(json.dumps(settings, indent=2))
        with progress.stage("making the report"):
            _generate(generator, work, made, request.results)
        for page in _pages(made):
            page.write_bytes(cleaned(page.read_bytes().decode(), page.name).encode())
        _publish(made, request.output, work)
        history.replace(request.history)
    return request.output / _PAGE


def cleaned(page: str, name: str) -> str:
    """An HTML page of the report without what loads from elsewhere, and with a policy that forbids that.

    :raises CommandError: it still names something elsewhere.
    """
    page = _COUNTER.sub("", _FOREIGN_SCRIPT.sub("", page))
    left = _LOADS.search(page)
    if left is not None:
        raise CommandError(
            f"the report's {name} loads {left[1]}",
            details="a report shows evidence, which is nobody else's business",
            resolution=f"use allure {VERSION}, of which it is known what to take out",
        )
    return re.sub(r"<head\b[^>]*>", lambda head: f"{head[0]}\n    {_MARK}\n    {_POLICY}", page, count=1)


def _results(folder: Path) -> Iterator[dict[str, Any]]:
    run_tests = f"make some: pytest --image REF --alluredir {folder}"
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}", resolution=run_tests)
    paths = sorted(folder.glob("*-result.json"))
    if not paths:
        raise ConfigError(f"{folder} has no results of Allure", resolution=run_tests)
    for path in paths:
        try:
            yield json.loads(path.read_bytes())
        except ValueError as error:
            raise ConfigError(f"{path} is no result of Allure", details=str(error), resolution="remove it") from error


def _check_output(request: ReportRequest) -> None:
    output = request.output
    if any(folder.resolve().is_relative_to(output.resolve()) for folder in request.results):
        raise ConfigError(
            f"the results are in {output}, which the report would replace", resolution="name another by -o"
        )
    if not output.exists():
        return
    page = output / _PAGE
    if not output.is_dir() or (any(output.iterdir()) and not (page.is_file() and _MARK.encode() in page.read_bytes())):
        raise ConfigError(
            f"{output} is there already, and is no report of this program",
            resolution="name another folder by -o, or remove it",
        )


@contextmanager
def _staging(request: ReportRequest) -> Iterator[tuple[Path, Path]]:
    """A folder beside the output, and a file beside the history, each for what will take its place."""
    for folder in (request.output.parent, request.history.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=f".{request.output.name}.", dir=request.output.parent) as work,
        tempfile.TemporaryDirectory(prefix=f".{request.history.name}.", dir=request.history.parent) as beside,
    ):
        yield Path(work).resolve(), Path(beside).resolve() / request.history.name


@contextmanager
def _host_trouble(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(f"the report {output} cannot be written", details=str(error)) from error


def _history_without(path: Path, results: Sequence[dict[str, Any]]) -> Iterator[bytes]:
    """The history's lines but for one that tells of these very results: making a report again adds nothing."""
    if not path.exists():
        return
    ours = {(result.get("fullName"), result.get("start")) for result in results}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            told = {(test["fullName"], test["start"]) for test in json.loads(line)["testResults"].values()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(
                f"{path}, line {number}, is no history of Allure",
                details=str(error),
                resolution="remove the line, or name another file by --history",
            ) from error
        if not told or not told <= ours:
            yield line + b"\n"


def _settings(request: ReportRequest, history: Path, name: str) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(_SETTINGS.read_text())
    settings |= {"name": name, "historyPath": str(history), "appendHistory": True}
    settings["plugins"]["awesome"]["options"]["singleFile"] = request.single_file
    return settings


def _title(results: Sequence[dict[str, Any]]) -> str:
    """What was judged: the names by which judged tests are sorted."""
    labels = [{label["name"]: label["value"] for label in result.get("labels", ())} for result in results]
    names = {said["parentSuite"] for said in labels if "state" in said and "parentSuite" in said}
    return ", ".join(sorted(names)) or "pytest-bootc"


def _generate(generator: Generator, work: Path, made: Path, results: Sequence[Path]) -> None:
    # Allure takes patterns and follows no links: the brackets and stars of a real path are kept away from it.
    copies = [f"results-{number}" for number, _ in enumerate(results)]
    for copy, folder in zip(copies, results, strict=True):
        _copy_files(folder, work / copy)
    options = ("--config", work / "allurerc.json", "--output", made, "--cwd", work)
    try:
        run(
            (*generator.argv, "generate", *options, *copies),
            deadline=Deadline.after(_SECONDS),
            env={**generator.environment, "NO_COLOR": "1"},
        )
    except CommandError as error:
        raise CommandError(
            f"allure {generator.version} made no report",
            details=f"{error.brief}\n{error.details}",
            resolution=f"see what it says; known to work is allure {VERSION}",
        ) from error
    if not (made / _PAGE).is_file():
        raise CommandError(f"allure {generator.version} made no {_PAGE}", resolution=f"use allure {VERSION}")


def _copy_files(folder: Path, target: Path) -> None:
    target.mkdir()
    for path in folder.iterdir():
        if path.is_file():
            try:
                os.link(path, target / path.name)
            except OSError:  # another file system, or one without links
                shutil.copyfile(path, target / path.name)


def _pages(folder: Path) -> Iterator[Path]:
    """The report's own pages; those below data/ are evidence, and stay as they are."""
    for page in sorted(folder.rglob("*.html")):
        if page.relative_to(folder).parts[0] != _ATTACHMENTS:
            yield page


def _publish(made: Path, output: Path, work: Path) -> None:
    if output.exists():
        output.rename(work / ".replaced")
    made.rename(output)
