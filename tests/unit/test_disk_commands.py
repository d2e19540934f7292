from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_bootc.cache import About, Cache
from pytest_bootc.cli import main
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk_commands import ago, human

DIGEST = "sha256:" + "5e" * 32


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """A cache with two disks of one layer each, the newer of which has a saved state; and with one layer of none."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = Cache(tmp_path / "pytest-bootc")

    def put(final: Path, about: About | None, days: float) -> None:
        def build(path: Path) -> None:
            path.mkdir()
            (path / "content").write_bytes(os.urandom(200 << 10))

        made.publish(build, final, about)
        os.utime(final, (time.time() - days * 86400 - 60,) * 2)

    for name, days in (("new", 0.1), ("old", 8.0)):
        layer = made.layers / (name * 20)
        put(layer, None, days)
        put(made.disks / (name * 10), About(f"example.org/os:{name}", DIGEST, (made.name_of(layer),)), days)
    put(made.warm / ("state" * 6), About("example.org/os:new", DIGEST, ("disks/" + "new" * 10,)), 0.1)
    put(made.layers / ("orphan" * 10), None, 3)
    return made


@pytest.fixture
def disk(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """What `pytest-bootc disk ...` writes, line by line."""

    def run(*arguments: str) -> list[str]:
        assert main(["disk", *arguments]) == 0
        told = capsys.readouterr()
        assert told.err == ""
        return told.out.splitlines()

    return run


def sizeless(lines: list[str]) -> list[str]:
    """With N in the place of each size: a folder takes more or less, depending on the file system."""
    return [re.sub(r"\d+(\.\d)? ([KMGT]i)?B\b", "N", line) for line in lines]


def test_list(cache: Cache, disk: Callable[..., list[str]]) -> None:
    with cache.lease(cache.disks / ("new" * 10), Deadline.after(5)):
        lines = disk("list")
    rows = [re.split(r" {2,}", line) for line in sizeless(lines)]
    assert rows[0] == ["KIND", "KEY", "IMAGE", "SIZE", "LAST USED", "IN USE BY"]
    assert rows[1][:5] == ["disk", "newnewnewnew", "example.org/os:new@5e5e5e5e5e5e", "N", "just now"]
    assert rows[1][5].startswith(f"process {os.getpid()} (")
    assert rows[2] == ["disk", "oldoldoldold", "example.org/os:old@5e5e5e5e5e5e", "N", "8 days ago"]
    assert rows[3] == ["state", "statestatest", "example.org/os:new@5e5e5e5e5e5e", "N", "2 hours ago"]
    assert sizeless(lines[4:]) == [
        f"2 disks (N), 1 saved state (N), 3 layers (N): N in {cache.home}",
        "pytest-bootc disk prune would free N, with --all N",
    ]


def test_list_with_the_layers(cache: Cache, disk: Callable[..., list[str]]) -> None:
    rows = [re.split(r" {2,}", line) for line in sizeless(disk("list", "--all"))]
    assert rows[4:7] == [
        ["layer", "newnewnewnew", "(of 1 disk)", "N", "2 hours ago"],
        ["layer", "orphanorphan", "(of 0 disks)", "N", "3 days ago"],
        ["layer", "oldoldoldold", "(of 1 disk)", "N", "8 days ago"],
    ]


def test_list_for_programs(cache: Cache, disk: Callable[..., list[str]]) -> None:
    other = cache.home / "warm" / "v99"
    other.mkdir()
    with cache.lease(cache.warm / ("state" * 6), Deadline.after(5)):
        told = json.loads("\n".join(disk("list", "--format", "json")))
    assert told["home"] == str(cache.home)
    assert told["other_versions"] == [{"path": str(other), "size": other.stat().st_blocks * 512}]
    entries = {entry.pop("name"): entry for entry in told["entries"]}
    assert len(entries) == 6
    state = entries["warm/" + "state" * 6]
    assert state.pop("in_use_by")[0].startswith(f"process {os.getpid()} (")
    assert 200 << 10 < state.pop("size") < 240 << 10
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", state.pop("last_used"))
    assert state == {
        "kind": "state",
        "key": "state" * 6,
        "path": str(cache.warm / ("state" * 6)),
        "image": "example.org/os:new",
        "digest": DIGEST,
        "needs": ["disks/" + "new" * 10],
        "needed_by": [],
        "whole": True,
    }
    assert entries["layers/" + "new" * 20]["needed_by"] == ["disks/" + "new" * 10]


def test_prune_by_itself(cache: Cache, disk: Callable[..., list[str]]) -> None:
    assert sizeless(disk("prune")) == [
        "removed layer orphanorphan (N)",
        f"freed N; 2 disks (N), 1 saved state (N), 2 layers (N): N stay in {cache.home}",
    ]
    assert not (cache.layers / ("orphan" * 10)).exists()


def test_prune_only_says_what_it_would_do(cache: Cache, disk: Callable[..., list[str]]) -> None:
    before = sorted(cache.home.rglob("*"))
    assert sizeless(disk("prune", "--older-than", "7d", "--dry-run")) == [
        "would remove layer orphanorphan (N)",
        "would remove disk oldoldoldold of example.org/os:old@5e5e5e5e5e5e (N)",
        "would remove layer oldoldoldold (N)",
        f"would free N; 1 disk (N), 1 saved state (N), 1 layer (N): N stay in {cache.home}",
    ]
    assert sorted(cache.home.rglob("*")) == before
    assert len(disk("prune", "--older-than", "1w", "--dry-run")) == 4
    assert len(disk("prune", "--older-than", "9d", "--dry-run")) == 2


def test_prune_to_a_size(cache: Cache, disk: Callable[..., list[str]]) -> None:
    lines = disk("prune", "--max-size", "700K")
    assert [line.split()[:3] for line in lines[:-1]] == [
        ["removed", "layer", "orphanorphan"],
        ["removed", "disk", "oldoldoldold"],
        ["removed", "layer", "oldoldoldold"],
    ]
    assert re.search(r": 6\d\d KiB stay in", lines[-1])


def test_prune_says_what_is_in_use(cache: Cache, disk: Callable[..., list[str]]) -> None:
    with cache.lease(cache.disks / ("new" * 10), Deadline.after(5)):
        for arguments in (("--all",), ("--max-size", "0")):
            *_, told, used = sizeless(disk("prune", *arguments))
            assert f"1 disk (N), 1 layer (N): N stay in {cache.home}" in told
            assert used.startswith("in use: disk newnewnewnew of example.org/os:new@5e5e5e5e5e5e (N), by process ")
    assert sizeless(disk("prune", "--all"))[-1] == f"freed N; 0 disks (N) stay in {cache.home}"
    assert disk("list") == [
        "KIND  KEY  IMAGE  SIZE  LAST USED  IN USE BY",
        f"0 disks (0 B) in {cache.home}",
        "pytest-bootc disk prune would free 0 B, with --all 0 B",
    ]


def test_what_another_version_has_is_told(cache: Cache, disk: Callable[..., list[str]]) -> None:
    other = cache.home / "disks" / "v9 9"
    other.mkdir()
    for lines in (sizeless(disk("list")), sizeless(disk("prune"))):
        assert lines[-1] == (
            f"left alone: N of another version of pytest-bootc; if you have no other, remove it: rm -r '{other}'"
        )


def test_the_cache_of_nobody_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Callable[..., list[str]]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert disk("prune") == [f"freed 0 B; 0 disks (0 B) stay in {tmp_path}/pytest-bootc"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--older-than", "7"), "'7' is no time: give a number and one of s m h d w, as in 7d"),
        (("--older-than", "-1d"), "expected one argument"),
        (("--max-size", "20 X"), "'20 X' is no size: give a number and one of K M G T, as in 20G"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(["disk", "prune", *arguments])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_alone_it_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["disk"])
    assert end.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (10 << 10, "10 KiB"),
        (3 << 30, "3.0 GiB"),
        (5 << 50, "5120 TiB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert human(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "just now"),
        (59, "just now"),
        (60, "1 minute ago"),
        (7199, "1 hour ago"),
        (86400, "1 day ago"),
        (13 * 86400, "13 days ago"),
        (14 * 86400, "2 weeks ago"),
    ],
)
def test_times_for_people(seconds: float, text: str) -> None:
    assert ago(seconds) == text
