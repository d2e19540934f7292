"""The HTML report by the real allure, of real runs with fake machines."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.reports.generator import VERSION

pytestmark = pytest.mark.integration

Report = Callable[..., subprocess.CompletedProcess[str]]

CHART = '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="20"><rect width="60" height="9"/></svg>'
TESTS = """
import pytest
from pathlib import Path
from pytest_bootc.errors import BackendError, ConfigError, GuestError

def test_good(vm): pass

def test_bad(vm, evidence):
    for name in ("plot.svg", "screen.png"):
        evidence.attach(name, Path(name).read_bytes())
    raise GuestError("a unit has failed: x.service", details="na\u00efve\u2028text", resolution="see the journal")

@pytest.mark.parametrize("number", [1, 2])
def test_each(vm, number): assert number == 1

def test_flaky(vm): pass
def test_lab(vm): raise BackendError("QEMU was killed")
def test_usage(vm): raise ConfigError("no mkfs.erofs")
def test_skipped(vm): pytest.skip("not here")
"""
# Stands for a test that was tried again.
CONFTEST = """
import pytest
from pytest_bootc.reports import allure
from pytest_bootc.verdict import State

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item):
    report = yield
    if item.name.startswith("test_flaky"):
        allure.set_state(State.FLAKY)
    return report
"""
CATEGORIES = {
    "The image failed": {"total": 2, "failed": 2},
    "Flaky: good only when tried again": {"total": 1, "failed": 1},
    "The laboratory failed": {"total": 1, "broken": 1},
    "Options or test set-up": {"total": 1, "broken": 1},
    "Not judged": {"total": 1, "skipped": 1},
}


def picture() -> bytes:
    """A PNG of one black pixel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


def command(*words: str | Path, folder: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    variables = {"PYTEST_ADDOPTS": "-pno:randomly", **{k: v for k, v in os.environ.items() if k[:6] != "BOOTC_"}}
    return subprocess.run(
        words, cwd=folder, env={**variables, **(env or {})}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The results of two runs of the same tests. One folder has a name that is a pattern, too."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "plot.svg").write_text(CHART)
    (folder / "screen.png").write_bytes(picture())
    (folder / "test_a.py").write_text(TESTS)
    (folder / "conftest.py").write_text(CONFTEST)
    # Whatever has a partition table is a disk for a machine that boots nothing.
    (folder / "server.raw").write_bytes(bytes(510) + b"\x55\xaa" + bytes(1 << 20))
    found = folder / "[1] *{b,c}", folder / "two"
    for results in found:
        asked = ("--backend=fake", "--disk=server.raw", f"--alluredir={results}")
        ran = command(sys.executable, "-m", "pytest", *asked, folder=folder)
        assert ran.returncode == 1, ran.stdout + ran.stderr
    return found


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """Run the program in a folder that has nothing to do with what it is given."""
    (tmp_path / "elsewhere").mkdir()

    def make(*words: str | Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return command(
            Path(sys.executable).with_name("pytest-bootc"), "report", *words, folder=tmp_path / "elsewhere", env=env
        )

    return make


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_runs_with_one_history(runs: tuple[Path, Path], report: Report, tmp_path: Path) -> None:
    output, history = tmp_path / "site", tmp_path / "kept" / "history.jsonl"
    for results in (*runs, runs[1]):  # the same once more adds nothing
        made = report(results, "-o", output, "--history", history)
        assert made.returncode == 0, made.stderr
    assert f"report: {output / 'index.html'}" in made.stdout
    assert len(history.read_text().splitlines()) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "kept", "site"]
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["history.jsonl"]

    categories = read(output / "widgets" / "categories.json")
    roots = [categories["nodes"][root] for root in categories["roots"]]
    assert {root["name"]: root["statistic"] for root in roots} == CATEGORIES
    assert [root["name"] for root in roots] == list(CATEGORIES)
    messages = {node["name"].splitlines()[0] for node in categories["nodes"].values() if node["type"] == "message"}
    assert {"a unit has failed: x.service", "QEMU was killed", "no mkfs.erofs"} <= messages

    groups = read(output / "widgets" / "tree.json")
    (root,) = groups["root"]["groups"]
    assert groups["groupsById"][root]["name"] == "server.raw"
    tests = {test["name"]: test for test in map(read, (output / "data" / "test-results").glob("*.json"))}
    assert tests.keys() == {
        "test_good", "test_bad", "test_each[1]", "test_each[2]", "test_flaky", "test_lab", "test_usage", "test_skipped",
    }  # fmt: skip
    assert all(len(test["history"]) == 1 for test in tests.values())
    assert read(output / "widgets" / "allure_environment.json")[0]["values"] == ["bad"]

    attached = {entry["link"]["name"]: entry["link"] for entry in tests["test_bad"]["attachments"]}
    for name, kind in {"plot.svg": "image/svg+xml", "screen.png": "image/png", "console.log": "text/plain"}.items():
        assert attached[name]["contentType"] == kind
    for name in ("plot.svg", "screen.png"):
        kept = output / "data" / "attachments" / f"{attached[name]['id']}{attached[name]['ext']}"
        assert kept.read_bytes() == (runs[0].parent / name).read_bytes()


@pytest.mark.parametrize("options", [(), ("--single-file",)])
def test_nothing_is_loaded_from_elsewhere(
    runs: tuple[Path, Path], report: Report, tmp_path: Path, options: tuple[str, ...]
) -> None:
    output = tmp_path / "site"
    made = report(*runs, "-o", output, "--history", tmp_path / "history", "--name", "Mine", *options)
    assert made.returncode == 0, made.stderr
    pages = {path.name: path.read_text() for path in output.rglob("*.html")}
    assert pages.keys() == {"index.html"}
    page = pages["index.html"]
    assert not re.search(r"googletagmanager|gtag\(|dataLayer", page)
    assert not re.search(r"""<[a-z][^<>]*(?:src|href)\s*=\s*["']?\s*(?:https?:)?//""", page)
    assert "Content-Security-Policy" in page
    assert "<title> Mine </title>" in page
    assert (output / "widgets").exists() != bool(options)


def test_what_a_failing_allure_says(runs: tuple[Path, Path], report: Report, tmp_path: Path) -> None:
    output, history, programs = tmp_path / "site", tmp_path / "history", tmp_path / "bin"
    assert report(runs[0], "-o", output, "--history", history).returncode == 0
    before = everything(output), history.read_text()
    programs.mkdir()
    broken = programs / "allure"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && { echo 3.99.1; exit; }\necho out of luck >&2\nexit 7\n')
    broken.chmod(0o755)
    made = report(runs[1], "-o", output, "--history", history, env={"PATH": f"{programs}:{os.environ['PATH']}"})
    assert made.returncode == 10
    assert "allure 3.99.1 made no report" in made.stderr
    assert "exit status 7" in made.stderr
    assert "out of luck" in made.stderr
    assert (everything(output), history.read_text()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "elsewhere", "history", "site"]


def test_an_interrupt_leaves_nothing_behind(runs: tuple[Path, Path], tmp_path: Path) -> None:
    programs, begun = tmp_path / "bin", tmp_path / "begun"
    programs.mkdir()
    slow = programs / "allure"
    slow.write_text(f'#!/bin/sh\n[ "$1" = --version ] && {{ echo 3.99.1; exit; }}\n: >"{begun}"\nexec sleep 120\n')
    slow.chmod(0o755)
    words = [Path(sys.executable).with_name("pytest-bootc"), "report", runs[0], "-o", tmp_path / "site"]
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    history = ["--history", tmp_path / "history"]
    with subprocess.Popen([*words, *history], env=env, stderr=subprocess.PIPE, text=True) as making:
        wait_until(begun.exists, Deadline.after(60), what="allure")
        making.send_signal(signal.SIGINT)
        _, told = making.communicate(timeout=30)
    assert making.returncode == 2
    assert told.splitlines()[-1] == "pytest-bootc: interrupted"
    assert "Traceback" not in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun", "bin"]


def test_what_cannot_be_read_or_written(runs: tuple[Path, Path], report: Report, tmp_path: Path) -> None:
    history = tmp_path / "history"
    history.write_text('{"testResults": {}}\n\n{"testResults": 1}\n')
    made = report(runs[0], "-o", tmp_path / "site", "--history", history)
    assert made.returncode == 4
    assert f"{history}, line 3, is no history of Allure" in made.stderr
    assert "What to do: remove the line, or name another file by --history" in made.stderr
    history.write_bytes(b"\xff\n")
    assert "line 1, is no history of Allure" in report(runs[0], "-o", tmp_path / "site", "--history", history).stderr
    made = report(runs[0], "-o", history / "site", "--history", tmp_path / "other")
    assert made.returncode == 10
    assert f"the report {history / 'site'} cannot be written" in made.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "history"]


def test_beside_or_inside_the_results(runs: tuple[Path, Path], report: Report, tmp_path: Path) -> None:
    results = tmp_path / "elsewhere" / "results"
    shutil.copytree(runs[0], results)
    for words in (["results"], ["results", "-o", "results/report"], ["results"]):
        made = report(*words)
        assert made.returncode == 0, made.stderr
    assert "report: allure-report/index.html\n" in made.stdout
    assert (results / "report" / "index.html").is_file()
    names = sorted(path.name for path in results.parent.iterdir())
    assert names == ["allure-history.jsonl", "allure-report", "results"]
    assert len((results.parent / "allure-history.jsonl").read_text().splitlines()) == 1


class Host:
    """A PATH with nothing but what is put there, and an empty cache."""

    def __init__(self, folder: Path) -> None:
        self.programs, self.cache = folder / "bin", folder / "cache"
        self.programs.mkdir()
        self.env = {"PATH": str(self.programs), "XDG_CACHE_HOME": str(self.cache)}

    def put(self, name: str, script: str | None = None) -> None:
        """A script, or a link to this host's own program."""
        if script is None:
            found = shutil.which(name)
            assert found is not None, f"{name} is missing: run scripts/setup"
            (self.programs / name).symlink_to(found)
            return
        (self.programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.programs / name).chmod(0o755)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_without_node(runs: tuple[Path, Path], report: Report, host: Host) -> None:
    made = report(runs[0], env=host.env)
    assert made.returncode == 4
    assert "node is not installed\nWhat to do: run scripts/setup report, or install Node 18" in made.stderr
    host.put("allure", "echo 2.34.0")  # of the Java line, which is no use
    host.put("node", "echo v16.20.2")
    made = report(runs[0], env=host.env)
    assert made.returncode == 4
    assert "is of version 16.20.2, which is too old for allure\nWhat to do: run scripts/setup" in made.stderr
    (host.programs / "node").unlink()
    host.put("node")
    made = report(runs[0], env=host.env)
    assert made.returncode == 4
    assert "npm is not installed\nWhat to do: run scripts/setup" in made.stderr


def test_where_npm_cannot_deliver(
    runs: tuple[Path, Path], report: Report, host: Host, closed_port: int, tmp_path: Path
) -> None:
    host.put("node")
    host.put("npm")
    nowhere = {"npm_config_registry": f"http://127.0.0.1:{closed_port}/", "npm_config_fetch_retries": "0"}
    empty = {"npm_config_cache": str(tmp_path / "npm"), "HOME": str(tmp_path)}
    made = report(runs[0], env={**host.env, **nowhere, **empty})
    assert made.returncode == 10
    assert f"npm could not install allure {VERSION}" in made.stderr
    assert "ECONNREFUSED" in made.stderr
    assert "What to do: see that npm reaches its registry" in made.stderr
    assert list((host.cache / "pytest-bootc" / "tools").iterdir()) == []
    assert not (runs[0].parent / "allure-report").exists()
