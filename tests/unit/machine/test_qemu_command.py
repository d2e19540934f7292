from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_bootc.image import Digest, ImageReference
from pytest_bootc.machine.firmware import Firmware
from pytest_bootc.machine.qemu_command import Engine, Wiring, kernel_arguments, plan, qemu_command, storage_command
from pytest_bootc.model import Accelerator, DiskFile, LiveDisk, MachineSpec, Network, ResolvedImage

IMAGE = ResolvedImage(ImageReference.parse("oci:/x"), Digest.of(b""), "amd64", {}, ())
FOLDER = Path("/cache/disks/v1/key")
LIVE = LiveDisk(
    key="key", image=IMAGE, folder=FOLDER, root=FOLDER / "root.vmdk", root_format="vmdk", root_type="erofs",
    var=FOLDER / "var.raw", kernel=FOLDER / "vmlinuz", kernel_pvh=FOLDER / "vmlinux", kernel_release="6.12",
    kernel_arguments=("own=1", "a=b c"), initramfs=FOLDER / "initramfs", isa_level="x86-64-v1", ssh_units=(),
    folders={}, losses=(), notes=(), layers=(),
)  # fmt: skip
FILE = DiskFile(Path("/disks/server.qcow2"), "qcow2", uefi=False)
RUN, VM = Path("/run/user/0/pytest-bootc-x"), Path("/cache/vms/vm-x")
WIRING = Wiring(
    qmp=RUN / "qmp", control=RUN / "control", events=RUN / "events", nbd=RUN / "nbd", console=VM / "console.log",
    overlay=VM / "overlay.qcow2", initrd=VM / "initrd", variables=VM / "variables.fd",
)  # fmt: skip
TCG = Engine(Path("/usr/bin/qemu"), Path("/usr/bin/qsd"), Accelerator.TCG, "Nehalem", pvh=True)
KVM = replace(TCG, accelerator=Accelerator.KVM, cpu_model="host")
SPEC = MachineSpec(memory_mib=1536, cpus=3, network=Network.RESTRICTED)


def values(argv: list[str], option: str) -> list[str]:
    """What follows each occurrence of an option."""
    return [value for name, value in itertools.pairwise(argv) if name == option]


def nodes(argv: list[str]) -> dict[str, dict[str, object]]:
    """The block devices by their name."""
    return {node["node-name"]: node for node in map(json.loads, values(argv, "-blockdev"))}


def test_the_shape_is_that_of_the_spec() -> None:
    argv = qemu_command(TCG, WIRING, SPEC, LIVE)
    assert argv[0] == "/usr/bin/qemu"
    assert values(argv, "-m") == ["1536M"]
    assert values(argv, "-smp") == ["3"]
    assert (values(argv, "-accel"), values(argv, "-cpu")) == (["tcg,thread=multi"], ["Nehalem"])
    argv = qemu_command(KVM, WIRING, SPEC, LIVE)
    assert (values(argv, "-accel"), values(argv, "-cpu")) == (["kvm"], ["host"])


def test_qemu_is_confined_and_shows_nothing() -> None:
    argv = qemu_command(TCG, WIRING, SPEC, LIVE)
    assert {"-nodefaults", "-no-user-config"} <= set(argv)
    assert values(argv, "-display") == ["none"]
    (sandbox,) = values(argv, "-sandbox")
    assert sandbox.split(",")[0] == "on"
    assert {"spawn=deny", "elevateprivileges=deny", "resourcecontrol=deny"} <= set(sandbox.split(","))


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Network.USER, ["user,id=net,restrict=off,hostfwd=tcp:127.0.0.1:0-:22"]),
        (Network.RESTRICTED, ["user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"]),
        (Network.NONE, []),
    ],
)
def test_the_network_is_as_asked(network: Network, words: list[str]) -> None:
    argv = qemu_command(TCG, WIRING, replace(SPEC, network=network), LIVE)
    assert values(argv, "-netdev") == words
    assert sum("virtio-net" in device for device in values(argv, "-device")) == len(words)


def test_a_live_disk_boots_its_own_kernel() -> None:
    argv = qemu_command(TCG, WIRING, SPEC, LIVE)
    assert values(argv, "-kernel") == [str(LIVE.kernel_pvh)]
    assert values(argv, "-initrd") == [str(WIRING.initrd)]
    assert values(argv, "-append") == [kernel_arguments(LIVE, Accelerator.TCG)]
    without_rom = qemu_command(replace(TCG, pvh=False), WIRING, SPEC, LIVE)
    without_note = qemu_command(TCG, WIRING, SPEC, replace(LIVE, kernel_pvh=None))
    assert values(without_rom, "-kernel") == values(without_note, "-kernel") == [str(LIVE.kernel)]


def test_the_first_disk_is_the_root_and_the_second_var() -> None:
    argv = qemu_command(TCG, WIRING, SPEC, LIVE)
    disks = [device for device in values(argv, "-device") if device.startswith("virtio-blk-pci")]
    assert disks == ["virtio-blk-pci,drive=root,serial=root", "virtio-blk-pci,drive=var,serial=var"]
    root, var = nodes(argv)["root"], nodes(argv)["var"]
    assert (root["driver"], root["read-only"]) == ("nbd", True)
    assert root["server"] == {"type": "unix", "path": str(WIRING.nbd)}
    assert (var["driver"], var["discard"]) == ("qcow2", "unmap")
    assert isinstance(var["file"], dict)
    assert var["file"]["filename"] == str(WIRING.overlay)
    assert "read-only" not in var


def test_the_storage_daemon_never_writes() -> None:
    argv = storage_command(TCG, WIRING, LIVE)
    root = json.loads(values(argv, "--blockdev")[0])
    assert (root["driver"], root["read-only"], root["file"]["read-only"]) == ("vmdk", True, True)
    assert root["file"]["filename"] == str(LIVE.root)
    assert values(argv, "--export") == ["type=nbd,id=root,node-name=root,name=root,writable=off"]
    raw = json.loads(values(storage_command(TCG, WIRING, replace(LIVE, root_format="raw")), "--blockdev")[0])
    assert raw["driver"] == "raw"


def test_kernel_arguments_are_a_closed_list_and_the_images_own() -> None:
    words = kernel_arguments(LIVE, Accelerator.KVM).split()
    assert words == ["console=ttyS0", "quiet", "ro", "selinux=0", "own=1", "a=b", "c"]
    emulated = kernel_arguments(LIVE, Accelerator.TCG).split()
    assert set(words) < set(emulated)
    # What is judged must not be switched off.
    judged = ("audit", "mitigations", "systemd.condition", "systemd.mask", "nokaslr", "panic", "oops", "enforcing")
    assert not [word for word in emulated if word.startswith(judged)]


def test_a_disk_file_boots_by_itself() -> None:
    argv = qemu_command(TCG, WIRING, SPEC, FILE)
    assert not {"-kernel", "-initrd", "-append"} & set(argv)
    assert list(nodes(argv)) == ["disk"]
    assert "virtio-vga" in values(argv, "-device")
    assert str(FILE.path) not in " ".join(argv)  # only the overlay is opened for writing; it names its own base


def test_an_iso_is_a_cd_and_boots_first() -> None:
    argv = qemu_command(TCG, WIRING, SPEC, replace(FILE, path=Path("/x.iso"), format="iso"))
    made = nodes(argv)
    assert (made["cd"]["read-only"], made["cd"]["file"]) == (
        True, {"driver": "file", "filename": "/x.iso", "read-only": True},
    )  # fmt: skip
    assert "ide-cd,drive=cd,bus=ide.0,bootindex=0" in values(argv, "-device")
    assert "disk" in made


def test_firmware_has_variables_of_its_own() -> None:
    firmware = Firmware(Path("/fw/code.fd"), "raw", Path("/fw/vars.qcow2"), "qcow2")
    argv = qemu_command(replace(TCG, firmware=firmware), WIRING, SPEC, FILE)
    made = nodes(argv)
    assert (made["code"]["driver"], made["code"]["read-only"]) == ("raw", True)
    assert (made["variables"]["driver"], made["variables"]["read-only"]) == ("qcow2", False)
    assert isinstance(made["variables"]["file"], dict)
    assert made["variables"]["file"]["filename"] == str(WIRING.variables)
    assert "pflash0=code,pflash1=variables" in values(argv, "-machine")


def test_commas_in_paths_do_not_end_them() -> None:
    odd = Path("/a,b")
    wiring = replace(
        WIRING, qmp=odd / "qmp", control=odd / "control", events=odd / "events", nbd=odd / "nbd",
        console=odd / "console", credentials=(odd / "0",),
    )  # fmt: skip
    argv = qemu_command(TCG, wiring, SPEC, FILE)
    assert values(argv, "-qmp") == ["unix:/a,,b/qmp,server=on,wait=off"]
    chardevs = values(argv, "-chardev")
    assert [word.partition("path=")[2] for word in chardevs] == [
        "/a,,b/console,append=on", "/a,,b/control,server=on,wait=off", "/a,,b/events,server=on,wait=off",
    ]  # fmt: skip
    assert values(argv, "-smbios") == ["type=11,path=/a,,b/0"]
    assert values(storage_command(TCG, wiring, LIVE), "--nbd-server") == [
        "addr.type=unix,addr.path=/a,,b/nbd,max-connections=4"
    ]


def test_ports_are_told_apart_by_name() -> None:
    ports = [d for d in values(qemu_command(TCG, WIRING, SPEC, LIVE), "-device") if d.startswith("virtserialport")]
    assert ports == [
        "virtserialport,chardev=control,nr=1,name=pytest-bootc.control",
        "virtserialport,chardev=events,nr=2,name=pytest-bootc.events",
    ]


def test_the_storage_daemon_is_started_before_qemu() -> None:
    storage, qemu = plan(TCG, WIRING, SPEC, LIVE)
    assert (storage["name"], storage["after"]) == ("storage", None)
    assert (qemu["name"], qemu["after"]) == ("qemu", str(WIRING.nbd))
    assert storage["log"] == qemu["log"] == str(VM / "qemu.log")
    assert qemu["argv"] == qemu_command(TCG, WIRING, SPEC, LIVE)
    (only,) = plan(TCG, WIRING, SPEC, FILE)
    assert (only["name"], only["after"]) == ("qemu", None)
    json.dumps([storage, qemu, only])
