"""How much RAM there is, as the kernel's files say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_bootc.machine.memory import HOST, HostMemory, Room, gib, needed, taken
from pytest_bootc.model import Accelerator

MIB = 1 << 20


def host(folder: Path, *, total: int = 8000, available: int = 6000, membership: str = "") -> HostMemory:
    """A host with so many MiB."""
    memory = HostMemory(folder / "meminfo", folder / "cgroup", folder / "mount")
    memory.meminfo.write_text(
        f"MemTotal:       {total << 10} kB\nMemFree:        1024 kB\nMemAvailable:   {available << 10} kB\n"
        "HugePages_Total:       0\n"
    )
    memory.membership.write_text(membership)
    return memory


def limit(folder: Path, files: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")


def test_the_hosts_own(tmp_path: Path) -> None:
    assert host(tmp_path).room() == Room(8000, 6000)


def test_this_host() -> None:
    room = HOST.room()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    assert 0 < room.available <= room.total <= pages


def test_the_limit_of_a_cgroup(tmp_path: Path) -> None:
    memory = host(tmp_path, membership="0::/pod/runner\n")
    statistics = "anon 1\nfile 5\ninactive_file 104857600\nactive_file 209715200\ninactive_anon 7"
    files = {"memory.max": 2000 * MIB, "memory.current": 800 * MIB, "memory.stat": statistics}
    limit(tmp_path / "mount/pod/runner", files)
    assert memory.room() == Room(2000, 1500)


def test_the_limit_of_a_cgroup_above(tmp_path: Path) -> None:
    memory = host(tmp_path, membership="0::/pod/runner\n")
    limit(tmp_path / "mount/pod/runner", {"memory.max": "max", "memory.current": 800 * MIB, "memory.stat": ""})
    limit(tmp_path / "mount/pod", {"memory.max": 1000 * MIB, "memory.current": 900 * MIB, "memory.stat": ""})
    assert memory.room() == Room(1000, 100)


def test_the_limit_of_an_old_cgroup_counts_its_descendants(tmp_path: Path) -> None:
    memory = host(tmp_path, membership="9:name=systemd:/x\n5:cpu,memory:/docker/1\n0::/\n")
    statistics = f"inactive_file {MIB}\nactive_file {MIB}\ntotal_inactive_file {50 * MIB}\ntotal_active_file {50 * MIB}"
    files = {"memory.limit_in_bytes": 3000 * MIB, "memory.usage_in_bytes": 600 * MIB, "memory.stat": statistics}
    # In a container the mount shows its own group as the top.
    limit(tmp_path / "mount/memory", files)
    assert memory.room() == Room(3000, 2500)


def test_a_limit_that_is_none(tmp_path: Path) -> None:
    memory = host(tmp_path, membership="5:memory:/\n")
    files = {"memory.limit_in_bytes": 9223372036854771712, "memory.usage_in_bytes": MIB, "memory.stat": ""}
    limit(tmp_path / "mount/memory", files)
    assert memory.room() == Room(8000, 6000)


def test_a_group_that_uses_more_than_it_may(tmp_path: Path) -> None:
    memory = host(tmp_path, membership="0::/\n")
    limit(tmp_path / "mount", {"memory.max": 100 * MIB, "memory.current": 101 * MIB, "memory.stat": ""})
    assert memory.room() == Room(100, 0)


@pytest.mark.parametrize(("total", "headroom"), [(4096, 512), (10240, 512), (40960, 2048)])
def test_headroom(total: int, headroom: int) -> None:
    assert Room(total, total).headroom == headroom


def test_what_a_machine_needs() -> None:
    assert needed(2048, Accelerator.KVM, Room(65536, 0)) == 2176
    assert needed(2048, Accelerator.TCG, Room(65536, 0)) == 2048 + 256 + 1024
    # QEMU's buffer of translated code is smaller on a small host.
    assert needed(2048, Accelerator.TCG, Room(4096, 0)) == 2048 + 256 + 512


def test_what_a_process_has_taken() -> None:
    script = "import sys; room = bytearray(b'x') * (64 << 20); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert 64 <= taken(process.pid) <= 84
        process.communicate()
    assert taken(process.pid) == 0


def test_an_amount() -> None:
    assert gib(2355) == "2.3 GiB"
