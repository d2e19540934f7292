"""The cgroups that this process is in (cgroups(7)), and what they allow; both versions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cgroups:
    """Where the kernel tells of them."""

    membership: Path = Path("/proc/self/cgroup")
    mount: Path = Path("/sys/fs/cgroup")

    def folders(self, controller: str) -> Iterator[tuple[Path, int]]:
        """Our groups and those above them, the innermost first, with the version of cgroups that each is of.

        Those that this mount does not show, as in a container, are named in vain.
        """
        for line in read(self.membership).splitlines():
            number, controllers, path = line.split(":", 2)
            version = 2 if number == "0" else 1
            if version == 1 and controller not in controllers.split(","):
                continue
            top, inner = self.mount if version == 2 else self.mount / controller, Path(path.lstrip("/"))
            for group in (inner, *inner.parents):
                yield top / group, version


def usable_processors(cgroups: Cgroups = Cgroups()) -> int:
    """How many of the host's processors we may use: by our affinity, and by the quotas of time."""
    counts = [float(len(os.sched_getaffinity(0)))]
    for folder, version in cgroups.folders("cpu"):
        words = read(folder / "cpu.max") if version == 2 else _old_quota(folder)
        if limit := re.fullmatch(r"(\d+) (\d+)", words.strip()):  # "max" and -1 are no limit
            counts.append(int(limit[1]) / int(limit[2]))
    return max(1, int(min(counts)))


def read(path: Path) -> str:
    """The text of a file of the kernel's; nothing where there is none, or its process has just ended."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _old_quota(folder: Path) -> str:
    return f"{read(folder / 'cpu.cfs_quota_us').strip()} {read(folder / 'cpu.cfs_period_us').strip()}"
