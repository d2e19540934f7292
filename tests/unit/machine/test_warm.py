"""What a saved boot depends on, and how its files are kept."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pytest_bootc.cache import Cache
from pytest_bootc.deadline import Deadline
from pytest_bootc.image import Digest, ImageReference
from pytest_bootc.machine import inject, qemu_command, warm
from pytest_bootc.machine.inject import Identity
from pytest_bootc.machine.qemu_command import Engine
from pytest_bootc.machine.warm import Boot, RefusedError, WarmStore, copy_sparse, warm_key
from pytest_bootc.model import Accelerator, LiveDisk, MachineSpec, Network, ResolvedImage
from pytest_bootc.progress import Silent

FOLDER = Path("/cache/disks/v2/key")
DISK = LiveDisk(
    key="key", image=ResolvedImage(ImageReference.parse("oci:/x"), Digest.of(b""), "amd64", {}, ()), folder=FOLDER,
    root=FOLDER / "root.vmdk", root_format="vmdk", root_type="erofs", var=FOLDER / "var.raw",
    kernel=FOLDER / "vmlinuz", kernel_pvh=FOLDER / "vmlinux", kernel_release="6.12", kernel_arguments=("a=b",),
    initramfs=FOLDER / "initramfs", isa_level="x86-64-v1", ssh_units=("ssh.service",), folders={}, losses=(),
    notes=(), layers=(),
)  # fmt: skip
SPEC = MachineSpec()
BOOT = Boot("boot-id", 7.5, 1000.0, None, Identity("a", "b", "c", "d"))


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    qemu = tmp_path / "qemu"
    qemu.write_text("a program")
    return Engine(qemu, tmp_path / "qsd", Accelerator.TCG, "Nehalem", pvh=True)


def test_the_same_is_the_same(engine: Engine) -> None:
    assert warm_key(engine, "10.0", SPEC, DISK) == warm_key(engine, "10.0", SPEC, DISK)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda engine: warm_key(engine, "10.1", SPEC, DISK), id="qemu-version"),
        pytest.param(lambda engine: warm_key(rebuilt(engine), "10.0", SPEC, DISK), id="qemu-build"),
        pytest.param(lambda engine: warm_key(replace(engine, cpu_model="max"), "10.0", SPEC, DISK), id="cpu-model"),
        pytest.param(
            lambda engine: warm_key(replace(engine, accelerator=Accelerator.KVM), "10.0", SPEC, DISK), id="accelerator"
        ),
        pytest.param(lambda engine: warm_key(replace(engine, pvh=False), "10.0", SPEC, DISK), id="kernel-form"),
        pytest.param(lambda engine: warm_key(engine, "10.0", replace(SPEC, memory_mib=1024), DISK), id="memory"),
        pytest.param(lambda engine: warm_key(engine, "10.0", replace(SPEC, cpus=3), DISK), id="cpus"),
        pytest.param(lambda engine: warm_key(engine, "10.0", replace(SPEC, var_gib=5), DISK), id="size-of-var"),
        pytest.param(
            lambda engine: warm_key(engine, "10.0", replace(SPEC, network=Network.RESTRICTED), DISK), id="network"
        ),
        pytest.param(lambda engine: warm_key(engine, "10.0", SPEC, replace(DISK, key="other")), id="disk"),
        pytest.param(
            lambda engine: warm_key(engine, "10.0", SPEC, replace(DISK, kernel_arguments=())), id="kernel-arguments"
        ),
        pytest.param(
            lambda engine: warm_key(engine, "10.0", SPEC, replace(DISK, ssh_units=("sshd.socket",))), id="units"
        ),
    ],
)
def test_another_machine_has_another_key(engine: Engine, other: Callable[[Engine], str]) -> None:
    before = warm_key(engine, "10.0", SPEC, DISK)
    assert other(engine) != before


def rebuilt(engine: Engine) -> Engine:
    engine.qemu.write_text("b program")
    os.utime(engine.qemu, ns=(1, 1))
    return replace(engine, qemu=engine.qemu)


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        pytest.param(warm, "RECIPE", 0, id="recipe"),
        pytest.param(inject, "AGENT", "another agent", id="injected-files"),
        pytest.param(qemu_command, "_LIVE_ARGUMENTS", ("quiet",), id="our-kernel-arguments"),
        pytest.param(warm.platform, "release", lambda: "7.0", id="host-kernel"),
        pytest.param(warm, "_processor", lambda: ["model name: another"], id="host-processor"),
    ],
)
def test_another_host_or_version_of_ours_has_another_key(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, module: object, name: str, value: object
) -> None:
    before = warm_key(engine, "10.0", SPEC, DISK)
    monkeypatch.setattr(module, name, value)
    assert warm_key(engine, "10.0", SPEC, DISK) != before


def test_the_processor_is_described() -> None:
    assert any(line.startswith(("flags", "Features")) for line in warm._processor())


@pytest.fixture
def store(tmp_path: Path) -> WarmStore:
    return WarmStore(Cache(tmp_path / "home"), tmp_path / "refusals", "key")


def fill(folder: Path) -> None:
    for name in ("ram", "state", "var.qcow2", "initrd", "console.log"):
        (folder / name).write_text(name)


def test_what_was_saved_is_found(store: WarmStore) -> None:
    assert store.find() is None
    store.publish(BOOT, fill, DISK)
    saved = store.find()
    assert saved is not None
    assert saved.boot == BOOT
    assert saved.file("state").read_text() == "state"
    assert saved.folder.stat().st_mode & 0o777 == 0o700


def test_an_entry_that_was_discarded_is_not_found_and_can_be_replaced(store: WarmStore) -> None:
    store.publish(BOOT, fill, DISK)
    store.discard()
    assert store.find() is None
    store.discard()
    store.publish(replace(BOOT, time_factor=2.0), fill, DISK)
    saved = store.find()
    assert saved is not None
    assert saved.boot.time_factor == 2.0


def test_an_entry_needs_its_disk(store: WarmStore, tmp_path: Path) -> None:
    store.publish(BOOT, fill, DISK)
    about = Cache(tmp_path / "home").about(tmp_path / "home/warm/v1/key")
    assert about is not None
    assert about.needs == ("disks/key",)
    assert about.image == "oci:/x"


def test_the_record_has_every_field(store: WarmStore) -> None:
    """A record of an older version lacks some, and is no record then."""
    store.publish(BOOT, fill, DISK)
    saved = store.find()
    assert saved is not None
    record = saved.folder / "boot.json"
    for name in asdict(BOOT):
        text = record.read_text()
        record.write_text(text.replace(f'"{name}"', f'"{name}-was"'))
        assert store.find() is None, name
        record.write_text(text)
    assert store.find() is not None


def test_who_waits_for_a_boot_that_is_not_saved_is_told(store: WarmStore) -> None:
    with store.saving(Deadline.after(1), Silent()):
        pass
    store.refuse("a unit has failed")
    past = time.time() - 60
    os.utime(store._refusal, (past, past))
    with store.saving(Deadline.after(1), Silent()):
        """An old refusal is no reason not to try."""
    os.utime(store._refusal, (past + 120, past + 120))
    with pytest.raises(RefusedError, match="a unit has failed"), store.saving(Deadline.after(1), Silent()):
        pass


def test_a_copy_has_the_holes_of_the_original(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.write(b"a" * 70_000)
        file.seek(50 << 20)
        file.write(b"b" * 5000)
        file.truncate(200 << 20)
    copy_sparse(source, target)
    assert target.stat().st_size == 200 << 20
    assert target.stat().st_blocks * 512 < 1 << 20
    assert target.stat().st_mode & 0o777 == 0o600
    with source.open("rb") as one, target.open("rb") as other:
        while piece := one.read(1 << 20):
            assert other.read(1 << 20) == piece


@pytest.mark.parametrize("size", [0, 4096])
def test_a_copy_of_nothing_but_a_hole(tmp_path: Path, size: int) -> None:
    (tmp_path / "source").touch()
    os.truncate(tmp_path / "source", size)
    copy_sparse(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == bytes(size)
