"""Emptying a cache: real entries with real leases."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_bootc.cache import About, Cache
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.stock import Entry, Policy, other_versions, plan, prune, take_stock

KIB = 1024
DAY = 86400.0
NOW = 1_000 * DAY


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def put(cache: Cache) -> Callable[..., Path]:
    """Store an entry: its name, how many KiB it has, how many days ago it was used, and what it needs."""

    def make(name: str, *needs: str, kib: int = 4, days: float = 0.0, image: str = "example.org/os:1") -> Path:
        store, _, key = name.partition("/")
        final = cache.store(store) / key

        def build(path: Path) -> None:
            path.mkdir()
            (path / "content").write_bytes(os.urandom(kib * KIB))

        cache.publish(build, final, None if store == "layers" else About(image, "sha256:ab", needs))
        os.utime(final, (NOW - days * DAY,) * 2)
        return final

    return make


def removed(cache: Cache, policy: Policy = Policy()) -> list[str]:  # noqa: B008 - a frozen value
    return [entry.name for entry in prune(cache, plan(take_stock(cache), policy, NOW))]


def names(cache: Cache) -> set[str]:
    return {entry.name for entry in take_stock(cache)}


def two_images(put: Callable[..., Path]) -> None:
    """Two disks that share a layer, of which one has a saved state."""
    for layer in ("shared", "old", "new"):
        put(f"layers/{layer}")
    put("disks/old", "layers/shared", "layers/old", days=30)
    put("disks/new", "layers/shared", "layers/new", days=1)
    put("warm/new", "disks/new", days=2, image="")


def test_what_is_there(cache: Cache, put: Callable[..., Path]) -> None:
    two_images(put)
    stock = {entry.name: entry for entry in take_stock(cache)}
    assert list(stock)[:3] == ["disks/new", "disks/old", "warm/new"]
    assert (stock["warm/new"].image, stock["warm/new"].digest) == ("example.org/os:1", "sha256:ab")
    disk = stock["disks/new"]
    assert (disk.store, disk.key, disk.path) == ("disks", "new", cache.disks / "new")
    assert (disk.image, disk.digest, disk.whole) == ("example.org/os:1", "sha256:ab", True)
    assert disk.needs == ("layers/shared", "layers/new")
    assert disk.needed_by == ("warm/new",)
    assert (disk.used, disk.users) == (NOW - DAY, ())
    assert set(stock["layers/shared"].needed_by) == {"disks/old", "disks/new"}


def test_a_disk_was_used_when_its_state_was(cache: Cache, put: Callable[..., Path]) -> None:
    two_images(put)
    os.utime(cache.warm / "new", (NOW, NOW))
    os.utime(cache.layers / "new", (1, 1))
    stock = {entry.name: entry.used for entry in take_stock(cache)}
    assert stock["disks/new"] == stock["layers/new"] == stock["layers/shared"] == NOW
    assert stock["disks/old"] == NOW - 30 * DAY


def test_sizes_are_what_is_really_used(cache: Cache, put: Callable[..., Path]) -> None:
    path = put("disks/sparse", kib=64)
    (before,) = take_stock(cache)
    with (path / "var.raw").open("wb") as file:
        file.truncate(1 << 30)
    (path / "again").hardlink_to(path / "content")
    (after,) = take_stock(cache)
    told = subprocess.run(["du", "-s", "-B1", path], capture_output=True, text=True, check=True).stdout.split()[0]
    assert after.size == int(told)
    assert 64 * KIB < before.size <= after.size < 128 * KIB


def test_by_itself_it_removes_what_is_of_no_use(cache: Cache, put: Callable[..., Path]) -> None:
    two_images(put)
    put("layers/orphan")
    (cache.downloads / "blob.part").write_bytes(b"x")
    put("warm/widow", "disks/gone")
    put("disks/amputated", "layers/gone", "layers/last")
    put("layers/last")
    put("disks/silent")
    (cache.disks / "silent" / "entry.json").unlink()
    before = names(cache)
    useless = {"layers/orphan", "downloads/blob.part", "warm/widow", "disks/amputated", "layers/last", "disks/silent"}
    assert set(removed(cache)) == useless
    assert names(cache) == before - useless
    assert removed(cache) == []


def test_by_age(cache: Cache, put: Callable[..., Path]) -> None:
    two_images(put)
    assert removed(cache, Policy(older_than=31 * DAY)) == []
    assert removed(cache, Policy(older_than=29 * DAY)) == ["disks/old", "layers/old"]
    assert removed(cache, Policy(older_than=1.5 * DAY)) == ["warm/new"]
    assert set(removed(cache, Policy(older_than=0))) == {"disks/new", "layers/new", "layers/shared"}
    assert names(cache) == set()


def test_a_disk_stays_for_its_state(cache: Cache, put: Callable[..., Path]) -> None:
    two_images(put)
    os.utime(cache.disks / "new", (1, 1))
    os.utime(cache.warm / "new", (NOW, NOW))
    assert removed(cache, Policy(older_than=DAY)) == ["disks/old", "layers/old"]


def test_by_size_the_oldest_go_first(cache: Cache, put: Callable[..., Path]) -> None:
    for age in range(1, 5):
        put(f"layers/{age}", kib=100)
        put(f"disks/{age}", f"layers/{age}", days=age)
    sizes = {entry.name: entry.size for entry in take_stock(cache)}
    total = sum(sizes.values())
    assert removed(cache, Policy(max_size=total)) == []
    assert removed(cache, Policy(max_size=total - 1)) == ["disks/4", "layers/4"]
    total -= sizes["disks/4"] + sizes["layers/4"]
    assert removed(cache, Policy(max_size=total - sizes["disks/3"] - sizes["layers/3"] - 1)) == [
        "disks/3", "layers/3", "disks/2", "layers/2",
    ]  # fmt: skip
    assert names(cache) == {"disks/1", "layers/1"}


def test_everything_but_what_is_used(cache: Cache, put: Callable[..., Path]) -> None:
    two_images(put)
    with cache.lease(cache.warm / "new", Deadline.after(5)):
        assert removed(cache, Policy(everything=True)) == ["disks/old", "layers/old"]
        assert removed(cache, Policy(max_size=0)) == []
    with cache.lease(cache.layers / "shared", Deadline.after(5)):
        assert set(removed(cache, Policy(everything=True))) == {"warm/new", "disks/new", "layers/new"}
    assert removed(cache) == ["layers/shared"]


def test_what_was_taken_into_use_meanwhile_stays_with_what_it_needs(cache: Cache, put: Callable[..., Path]) -> None:
    two_images(put)
    going = plan(take_stock(cache), Policy(everything=True), NOW)
    assert len(going) == 6
    with ExitStack() as leases:
        leases.enter_context(cache.lease(cache.disks / "new", Deadline.after(5)))
        gone = {entry.name for entry in prune(cache, going)}
    assert gone == {"warm/new", "disks/old", "layers/old"}


def test_what_is_needed_meanwhile_stays(cache: Cache, put: Callable[..., Path]) -> None:
    put("layers/one")
    put("disks/one", "layers/one")
    going = plan(take_stock(cache), Policy(everything=True), NOW)
    put("warm/late", "disks/one")
    assert list(prune(cache, going)) == []
    assert names(cache) == {"layers/one", "disks/one", "warm/late"}


def test_what_went_meanwhile_is_no_trouble(cache: Cache, put: Callable[..., Path]) -> None:
    two_images(put)
    going = plan(take_stock(cache), Policy(everything=True), NOW)
    assert len(list(prune(cache, going))) == 6
    assert list(prune(cache, going)) == []


USER = """
import sys
from pathlib import Path
from pytest_bootc.deadline import Deadline
from pytest_bootc.cache import Cache

cache = Cache(Path(sys.argv[1]))
with cache.lease(cache.disks / "new", Deadline.after(5)):
    print(flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def user(cache: Cache) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", USER, cache.home]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_who_uses_it(cache: Cache, put: Callable[..., Path], user: subprocess.Popen[bytes]) -> None:
    two_images(put)
    (used,) = [entry for entry in take_stock(cache) if entry.users]
    assert used.name == "disks/new"
    (told,) = used.users
    assert told.startswith(f"process {user.pid} ({sys.executable} -c ")
    assert len(told) < 90
    assert told.isprintable()
    with cache.lease(used.path, Deadline.after(5)):
        assert [len(entry.users) for entry in take_stock(cache) if entry.name == used.name] == [2]


def test_who_uses_it_by_inheritance(cache: Cache, put: Callable[..., Path]) -> None:
    """The one who took the lease is gone, and a child of it has it still."""
    two_images(put)
    program = (
        "import os, subprocess, sys\n"
        "from pathlib import Path\n"
        "from pytest_bootc.deadline import Deadline\n"
        "from pytest_bootc.cache import Cache\n"
        "cache = Cache(Path(sys.argv[1]))\n"
        "with cache.lease(cache.disks / 'new', Deadline.after(5)) as lease:\n"
        "    child = subprocess.Popen(['sleep', '60'], pass_fds=[lease.fileno()], stdout=subprocess.DEVNULL)\n"
        "    print(child.pid, flush=True)\n"
        "    os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, cache.home], stdout=subprocess.PIPE, check=True)
    child = int(done.stdout)
    try:
        (users,) = [entry.users for entry in take_stock(cache) if entry.name == "disks/new"]
        assert users == (f"process {child} (sleep 60)",)
        assert set(removed(cache, Policy(everything=True))) == {"warm/new", "disks/old", "layers/old"}
    finally:
        os.kill(child, 9)


def test_other_versions_are_told_and_left_alone(cache: Cache, put: Callable[..., Path]) -> None:
    other = cache.home / "disks" / "v999" / "key"
    other.mkdir(parents=True)
    (other / "file").write_bytes(bytes(64 * KIB))
    put("layers/orphan")
    ((path, size),) = other_versions(cache)
    assert path == other.parent
    assert size >= 64 * KIB
    assert removed(cache, Policy(everything=True)) == ["layers/orphan"]
    assert (other / "file").exists()


def test_a_plan_takes_nothing_that_is_used() -> None:
    disk = Entry("disks", "a", Path("a"), 1, 0.0, needs=("layers/a",), users=("process 1",))
    layer = Entry("layers", "a", Path("a"), 1, 0.0, needed_by=("disks/a",))
    everything = Policy(everything=True, older_than=0, max_size=0)
    assert plan([disk, layer], everything, time.time()) == []
    assert plan([replace(disk, users=()), layer], everything, time.time()) == [replace(disk, users=()), layer]
