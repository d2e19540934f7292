"""Seeded faults: a bed for each, and the table at the end."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# pytest's importlib mode leaves sys.path alone.
sys.path.append(str(Path(__file__).parent))

from harness import ROW, Bed, Book, Row, table

_BUILDER = Path(__file__).parents[1] / "images" / "build.py"


class Layouts(dict[str, Path]):
    """The test images, each built when it is first asked for."""

    def __missing__(self, name: str) -> Path:
        done = subprocess.run([sys.executable, _BUILDER, name], check=True, stdout=subprocess.PIPE, text=True)
        self[name] = Path(done.stdout.strip())
        return self[name]


@pytest.fixture(scope="session")
def layouts() -> Layouts:
    """The folder of a test image's OCI layout, by its name."""
    return Layouts()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache for the cases of this process, so that what is left in it is theirs."""
    folder = tmp_path_factory.mktemp("cache")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def bed(cache: Path) -> Iterator[Bed]:
    """Folders for the runs of one case."""
    made = Bed(cache)
    yield made
    made.close()


@pytest.fixture
def book(request: pytest.FixtureRequest, bed: Bed, layouts: Layouts) -> Book:
    """Makes the runs of a case, judges them, and writes its row."""
    return Book(request.node.user_properties, bed, layouts)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was seeded, caught and classified right."""
    if hasattr(terminalreporter.config, "workerinput"):
        return
    rows: dict[str, Row] = {}
    without: set[str] = set()
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if not isinstance(report, pytest.TestReport) or "tests/red/test_bad_" not in report.nodeid:
            continue
        told = [json.loads(str(value)) for name, value in report.user_properties if name == ROW]
        rows.update({row["case"]: Row(**row) for row in told})
        if report.failed and not told:
            without.add(report.nodeid.partition("::")[2])
    # A case that ended before it was judged was not caught.
    rows.update(
        {name: Row(name, "(the case itself broke)", caught=False, right=False, seconds=0.0) for name in without}
    )
    if rows:
        terminalreporter.section("seeded faults")
        for line in table(list(rows.values())):
            terminalreporter.write_line(line)
