"""What the cgroups allow of the host's processors. What they allow of its RAM is in test_memory.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_bootc.machine.cgroup import Cgroups, usable_processors


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cgroups:
    """Of a process that may use six processors, in the groups of both versions."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)))
    (tmp_path / "cgroup").write_text("4:cpuacct,cpu:/old/inner\n3:cpuset:/x\n0::/new/inner\n")
    for folder in ("mount/cpu/old/inner", "mount/new/inner"):
        (tmp_path / folder).mkdir(parents=True)
    return Cgroups(tmp_path / "cgroup", tmp_path / "mount")


def test_without_a_limit(cgroups: Cgroups) -> None:
    assert usable_processors(cgroups) == 6


@pytest.mark.parametrize(("quota", "count"), [("400000 100000", 4), ("250000 100000", 2), ("50000 100000", 1)])
@pytest.mark.parametrize("group", ["new/inner", "new", "."])
def test_a_quota(cgroups: Cgroups, group: str, quota: str, count: int) -> None:
    (cgroups.mount / "new/inner/cpu.max").write_text("max 100000\n")
    (cgroups.mount / group / "cpu.max").write_text(f"{quota}\n")
    assert usable_processors(cgroups) == count


@pytest.mark.parametrize(("quota", "count"), [("-1", 6), ("300000", 3)])
def test_a_quota_of_the_old_kind(cgroups: Cgroups, quota: str, count: int) -> None:
    folder = cgroups.mount / "cpu/old"
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert usable_processors(cgroups) == count


def test_this_host() -> None:
    assert 1 <= usable_processors() <= len(os.sched_getaffinity(0))
