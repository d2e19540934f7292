"""From a pulled image to the first verdict, against a bare QEMU that boots the same kernel and the same systemd."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_bootc.cache import Cache, default_home
from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.disk.live import Workshop, build_live_disk
from pytest_bootc.image import ImageReference
from pytest_bootc.machine.accel import cpu_model
from pytest_bootc.model import Accelerator, LiveDisk
from pytest_bootc.progress import Silent
from pytest_bootc.source import source_for
from rows.figure import Figure
from rows.roots import _server

_PAIRS = 2
_TEST = "def test_first(ssh):\n    assert ssh.succeed('id -u').strip() == '0'\n"
_CONFTEST = """\
import time
def pytest_runtest_logreport(report):
    if report.when == "call":
        open("verdict", "w").write(f"{time.monotonic()} {report.outcome}")
"""


def measure() -> list[Figure]:
    layout = _server()
    disk = disk_of(layout)
    pairs = [(_ours(layout), bare_boot(disk)) for _ in range(_PAIRS)]
    ours, bare = min(pairs)
    details = f"bare boot to login {bare:.1f} s; " + ", ".join(f"{a:.1f}/{b:.1f}" for a, b in pairs)
    return [
        Figure("server image, pulled, cold -> first verdict", ours, "s", 60, details),
        Figure("the same, against a bare boot to the login prompt", ours / bare, "x", 1.3),
    ]


def _ours(layout: Path) -> float:
    """The layers are in the cache ("pulled"); the disk is not, and no boot has been saved."""
    with tempfile.TemporaryDirectory(dir=Path.home() / ".cache") as name:
        folder = Path(name)
        shutil.copytree(default_home() / "layers", folder / "pytest-bootc" / "layers")
        if (default_home() / "probes").exists():
            shutil.copytree(default_home() / "probes", folder / "pytest-bootc" / "probes")
        for index in (folder / "pytest-bootc" / "layers").rglob("*.erofs"):
            index.unlink()
        work = folder / "work"
        work.mkdir()
        return seconds_to_verdict(layout, work, XDG_CACHE_HOME=str(folder))


def seconds_to_verdict(layout: Path, work: Path, *options: str, **environment: str) -> float:
    """From the start of pytest until a test that logs in has passed."""
    (work / "test_first.py").write_text(_TEST)
    (work / "conftest.py").write_text(_CONFTEST)
    command = [sys.executable, "-m", "pytest", "-q", "--image", f"oci:{layout}:latest", *options]
    began = time.monotonic()
    subprocess.run(command, check=True, cwd=work, capture_output=True, env={**os.environ, **environment})
    at, outcome = (work / "verdict").read_text().split()
    if outcome != "passed":
        raise SystemExit(f"the test {outcome}")
    return float(at) - began


def bare_boot(disk: LiveDisk) -> float:
    """QEMU alone, as one would type it: to the login prompt on the serial console, with nothing brought along."""
    with tempfile.TemporaryDirectory() as name, _served(disk, Path(name)) as socket:
        console = Path(name, "console")
        overlay = Path(name, "var.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk.var, "-F", "raw", overlay], check=True)
        command = [
            "qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "q35", "-accel", "tcg,thread=multi",
            "-cpu", cpu_model(Accelerator.TCG, disk.isa_level), "-smp", "2", "-m", "2048",
            "-kernel", str(disk.kernel), "-initrd", str(disk.initramfs),
            "-append", "console=ttyS0 quiet ro selinux=0",
            "-drive", f"if=virtio,format=raw,readonly=on,file=nbd+unix:///root?socket={socket}",
            "-drive", f"if=virtio,format=qcow2,file={overlay}",
            "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net", "-serial", f"file:{console}",
        ]  # fmt: skip
        began = time.monotonic()
        with subprocess.Popen(command) as qemu:
            try:
                wait_until(lambda: _prompts(console), Deadline.after(300), what="the login prompt")
                return time.monotonic() - began
            finally:
                qemu.kill()


@contextmanager
def _served(disk: LiveDisk, folder: Path) -> Iterator[Path]:
    socket = folder / "nbd"
    command = [
        "qemu-storage-daemon",
        "--blockdev", f"driver=file,node-name=file,filename={disk.root},read-only=on",
        "--blockdev", f"driver={disk.root_format},node-name=root,file=file,read-only=on",
        "--nbd-server", f"addr.type=unix,addr.path={socket}",
        "--export", "type=nbd,id=root,node-name=root,name=root",
    ]  # fmt: skip
    with subprocess.Popen(command) as daemon:
        try:
            wait_until(socket.exists, Deadline.after(10), what="the storage daemon")
            yield socket
        finally:
            daemon.kill()


def _prompts(console: Path) -> bool:
    return console.exists() and b"login:" in console.read_bytes()


def disk_of(layout: Path) -> LiveDisk:
    reference = ImageReference.parse(f"oci:{layout}:latest")
    source = source_for(reference)
    deadline = Deadline.after(600)
    workshop = Workshop(Cache(default_home()), deadline, Silent(), 40)
    return build_live_disk(source.resolve(reference, deadline), source, workshop)
