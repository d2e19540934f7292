"""How much RAM this host can give, and how much of what machines were promised they have taken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pytest_bootc.machine.cgroup import Cgroups, read
from pytest_bootc.model import Accelerator

_LEAST_HEADROOM = 512
_HEADROOM_SHARE = 20
# What QEMU takes for itself besides the guest's RAM, in MiB (RssAnon in /proc/PID/status, QEMU 7.2): devices, queues,
# the display, and in emulation the processors' translation caches.
_DEVICES = {Accelerator.KVM: 128, Accelerator.TCG: 256}
# QEMU's own default for the buffer of translated code (tcg/region.c). A boot fills 600 MiB of it.
_LARGEST_CODE_BUFFER = 1024
_CODE_BUFFER_SHARE = 8


class _Files(NamedTuple):
    """The files of a cgroup, and what the lines of memory.stat begin with that count its descendants, too."""

    limit: str
    usage: str
    prefix: str


_V1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
_V2 = _Files("memory.max", "memory.current", "")


@dataclass(frozen=True)
class Room:
    """RAM in MiB: all that there is, and what could be taken now without swapping."""

    total: int
    available: int

    @property
    def headroom(self) -> int:
        """What no machine gets, so that the host stays usable."""
        return max(_LEAST_HEADROOM, self.total // _HEADROOM_SHARE)


@dataclass(frozen=True)
class HostMemory:
    """Where the kernel tells of memory (proc(5), cgroups(7)): the host's, and the limits of the cgroups we are in."""

    meminfo: Path = Path("/proc/meminfo")
    membership: Path = Path("/proc/self/cgroup")
    cgroups: Path = Path("/sys/fs/cgroup")

    def room(self) -> Room:
        """The room by now: the host's, or that of the narrowest cgroup."""
        rooms = [self._host(), *self._limited()]
        return Room(min(room.total for room in rooms), min(room.available for room in rooms))

    def _host(self) -> Room:
        told = dict(re.findall(r"^(\w+):\s+(\d+) kB$", self.meminfo.read_text(), re.MULTILINE))
        return Room(int(told["MemTotal"]) >> 10, int(told["MemAvailable"]) >> 10)

    def _limited(self) -> Iterator[Room]:
        for folder, version in Cgroups(self.membership, self.cgroups).folders("memory"):
            files = _V2 if version == 2 else _V1
            limit, usage = (read(folder / name).strip() for name in (files.limit, files.usage))
            if not limit.isdecimal() or not usage.isdecimal():
                continue  # "max", or a folder that our mount of the file system does not show
            # As the kernel reckons MemAvailable: the page cache is given back when there is need.
            pattern = rf"^{files.prefix}(?:in)?active_file (\d+)$"
            cache = sum(int(size) for size in re.findall(pattern, read(folder / "memory.stat"), re.MULTILINE))
            yield Room(int(limit) >> 20, max(0, int(limit) - max(0, int(usage) - cache)) >> 20)


#: This host.
HOST = HostMemory()


def needed(memory_mib: int, accelerator: Accelerator, room: Room) -> int:
    """The MiB that a machine takes in the end: its RAM, and what QEMU itself needs."""
    emulated = accelerator is Accelerator.TCG
    translations = min(_LARGEST_CODE_BUFFER, room.total // _CODE_BUFFER_SHARE) if emulated else 0
    return memory_mib + _DEVICES[accelerator] + translations


def taken(pid: int) -> int:
    """The MiB that a process has and that nobody can take from it: 0 for one that has ended.

    Files that it has mapped do not count: the kernel counts them as available.
    """
    told = re.findall(r"^(?:RssAnon|RssShmem):\s+(\d+) kB$", read(Path(f"/proc/{pid}/status")), re.MULTILINE)
    return sum(map(int, told)) >> 10


def gib(mib: int) -> str:
    """An amount as people read it."""
    return f"{mib / 1024:.1f} GiB"
