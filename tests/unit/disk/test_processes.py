"""Runs that share a cold cache, and runs that are killed: real processes, real tools, an image of many layers."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_bootc.cache import Cache
from pytest_bootc.command import look_for_program
from pytest_bootc.disk.stock import Policy, plan, prune, take_stock

LAYERS = 8
KILLS = 24
FOLDERS = ("dev", "proc", "sys", "run", "etc", "var", "usr", "usr/lib", "usr/lib/modules", "usr/lib/modules/6.12.0")
MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "overlay", "erofs", "ext4")

pytestmark = pytest.mark.skipif(look_for_program("mkfs.erofs") is None, reason="mkfs.erofs is not installed")

RUN = """
import sys
from pathlib import Path
from pytest_bootc.deadline import Deadline
from pytest_bootc.cache import Cache
from pytest_bootc.disk.live import Workshop, build_live_disk
from pytest_bootc.image import ImageReference
from pytest_bootc.progress import Silent
from pytest_bootc.source import source_for

deadline = Deadline.after(60)
reference = ImageReference.parse(f"oci:{sys.argv[2]}")
source = source_for(reference)
print("ready", flush=True)
sys.stdin.readline()
workshop = Workshop(Cache(Path(sys.argv[1])), deadline, Silent(), 1)
print(build_live_disk(source.resolve(reference, deadline), source, workshop).key)
"""


@pytest.fixture
def layout(oci_layout: Any, member: Callable[..., Any], tar_of: Callable[..., bytes]) -> Path:
    """A small image that a disk can be made of."""
    kernel = bytearray(2048)
    struct.pack_into("<4sH", kernel, 0x202, b"HdrS", 0x20F)
    builtin = "".join(f"kernel/{name}.ko\n" for name in MODULES)
    base = [member(folder, type=tarfile.DIRTYPE, mode=0o755) for folder in FOLDERS]
    base.append(member("usr/lib/modules/6.12.0/vmlinuz", bytes(kernel)))
    base.append(member("usr/lib/modules/6.12.0/modules.builtin", builtin.encode()))
    rng, layers = random.Random(1), [tar_of(*base)]
    for number in range(1, LAYERS):
        folder = [member(name, type=tarfile.DIRTYPE, mode=0o755) for name in ("usr", f"usr/{number}")]
        layers.append(tar_of(*folder, member(f"usr/{number}/data", rng.randbytes(1 << 20))))
    oci_layout.index(oci_layout.image(*layers))
    path: Path = oci_layout.path
    return path


WITNESS = """
import os, sys

def hear(event, arguments):
    if event == "subprocess.Popen" and "mkfs.erofs" in os.fspath(arguments[0]):
        with open({log!r}, "a") as file:
            file.write(" ".join(map(os.fspath, arguments[1])) + "\\n")

sys.addaudithook(hear)
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What mkfs.erofs was called for by all Pythons that are started from here on, one line a call."""
    log, place = tmp_path / "calls", tmp_path / "witness"
    place.mkdir()
    (place / "sitecustomize.py").write_text(WITNESS.format(log=str(log)))
    monkeypatch.setenv("PYTHONPATH", str(place))
    return lambda: [line for line in log.read_text().splitlines() if not line.endswith(" -V")]


def start(home: Path, layout: Path) -> subprocess.Popen[str]:
    """A run that waits for a word before it begins, in a process group of its own."""
    command = [sys.executable, "-c", RUN, home, layout]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def finish(process: subprocess.Popen[str]) -> str:
    """The key of the disk that a run has made."""
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return told.strip()


def content(disk: Path) -> dict[str, str]:
    """The files of a disk that are the same in every cache."""
    own = (disk / name for name in ("root.erofs", "vmlinuz", "initramfs"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in own}


def leftovers(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if path.name.startswith(".") or path.parent.name == "locks"]


def assert_whole(cache: Cache) -> None:
    """What can be seen under its name is complete."""
    for folder in cache.layers.glob("[!.]*"):
        size = json.loads((folder / "layer.json").read_bytes())["size"]
        tar = (folder / f"{folder.name}.tar").read_bytes()
        assert hashlib.sha256(tar[:size]).hexdigest() == folder.name
    for folder in cache.disks.glob("[!.]*"):
        for name, size in json.loads((folder / "disk.json").read_bytes())["files"].items():
            assert (folder / name).stat().st_size == size
    assert all(entry.whole for entry in take_stock(cache))


def test_runs_at_the_same_time_make_everything_once(
    tmp_path: Path, layout: Path, calls: Callable[[], list[str]]
) -> None:
    home = tmp_path / "cache"
    runs = [start(home, layout) for _ in range(4)]
    for run in runs:
        go(run)
    (key,) = {finish(run) for run in runs}
    made = calls()
    assert sum("--tar=i" in call for call in made) == LAYERS
    assert sum("--ovlfs-strip" in call for call in made) == 1
    assert len(made) == LAYERS + 1
    cache = Cache(home)
    assert [path.name for path in cache.disks.iterdir()] == [key]
    assert len(list(cache.layers.iterdir())) == LAYERS
    assert_whole(cache)
    assert leftovers(home) == []


def test_workers_of_one_run_make_everything_once(
    tmp_path: Path, layout: Path, calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('number', range(8))\n"
        "def test_it(golden_disk, worker_id, number):\n"
        "    print('disk', worker_id, golden_disk.key)\n"
    )
    command = [sys.executable, "-m", "pytest", "-n4", "-rP", "-pno:cacheprovider", "-pno:randomly"]
    command += ["--image", f"oci:{layout}"]
    run = subprocess.run(command, cwd=tmp_path / "work", capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout
    told = [line.split() for line in run.stdout.splitlines() if line.startswith("disk ")]
    assert {worker for _, worker, _ in told} == {"gw0", "gw1", "gw2", "gw3"}
    assert len({key for _, _, key in told}) == 1
    assert len(calls()) == LAYERS + 1
    assert_whole(Cache(tmp_path / "xdg" / "pytest-bootc"))


def test_runs_that_are_killed_at_any_moment(tmp_path: Path, layout: Path) -> None:
    """Nothing half-made is ever seen, and the next run makes the disk as if nothing had been."""
    began = time.monotonic()
    untroubled = start(tmp_path / "untroubled", layout)
    started = time.monotonic() - began
    go(untroubled)
    key = finish(untroubled)
    lasts = max(0.1, time.monotonic() - began - started)
    wanted = content(Cache(tmp_path / "untroubled").disks / key)

    home, rng, interrupted = tmp_path / "cache", random.Random(), 0
    for _ in range(KILLS):
        run = start(home, layout)
        go(run)
        time.sleep(rng.uniform(0, lasts))
        if rng.random() < 0.5:  # with the programs that it has started, or without
            os.killpg(run.pid, signal.SIGKILL)
        else:
            run.kill()
        told, _ = run.communicate(timeout=60)
        interrupted += told == ""
        cache = Cache(home)
        assert_whole(cache)
        # So that there is something to do for the next one.
        going = plan(take_stock(cache), Policy(everything=True), time.time())
        for _ in prune(cache, going[: rng.randint(0, len(going))]):
            pass

    last = start(home, layout)
    go(last)
    assert finish(last) == key
    assert content(Cache(home).disks / key) == wanted
    assert_whole(Cache(home))
    assert leftovers(home) == []
    assert interrupted > KILLS // 4
