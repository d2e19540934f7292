"""The command lines of QEMU and its storage daemon. Pure: from values to argument vectors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_bootc.machine.firmware import Firmware
from pytest_bootc.model import Accelerator, DiskFile, GoldenDisk, LiveDisk, MachineSpec, Network

_LISTEN_SECONDS = 5
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

# The closed list of what a live disk boots with, besides the image's own (kargs.d). Nothing here switches off what is
# judged. selinux=0: layers carry no labels, so that an enforcing policy would deny everything.
_LIVE_ARGUMENTS = ("console=ttyS0", "quiet", "ro", "selinux=0")
# In emulation only: what a virtual clock and a virtual CPU make slow and what says nothing about an image.
_TCG_ARGUMENTS = ("no_timer_check", "tsc=reliable", "cryptomgr.notests", "random.trust_cpu=on")


@dataclass(frozen=True)
class Memory:
    """The guest's RAM as a file: shared with it, so that it can be saved, or ``cloned`` from what another saved."""

    path: Path
    cloned: bool = False


@dataclass(frozen=True)
class Wiring:
    """The files and sockets of one machine; without ``memory`` its RAM is no file and cannot be saved."""

    qmp: Path
    control: Path
    events: Path
    nbd: Path
    console: Path
    overlay: Path
    initrd: Path
    variables: Path
    credentials: tuple[Path, ...] = ()
    memory: Memory | None = None


@dataclass(frozen=True)
class Engine:
    """The programs that run a machine, and how; ``firmware`` is ``None`` for the BIOS that comes with QEMU."""

    qemu: Path
    storage_daemon: Path
    accelerator: Accelerator
    cpu_model: str
    pvh: bool
    firmware: Firmware | None = None
    remarks: tuple[str, ...] = ()


def kernel_arguments(disk: LiveDisk, accelerator: Accelerator) -> str:
    """The kernel command line of a live disk."""
    own = _TCG_ARGUMENTS if accelerator is Accelerator.TCG else ()
    return " ".join([*_LIVE_ARGUMENTS, *own, *disk.kernel_arguments])


def storage_command(engine: Engine, wiring: Wiring, disk: LiveDisk) -> list[str]:
    """The storage daemon: it joins index and layers into one disk and offers it on a socket (NBD)."""
    file = {"driver": "file", "filename": str(disk.root), "read-only": True, "locking": "off"}
    root = {"driver": disk.root_format, "node-name": "root", "read-only": True, "file": file}
    return [
        str(engine.storage_daemon),
        "--blockdev", json.dumps(root),
        "--nbd-server", f"addr.type=unix,addr.path={_word(wiring.nbd)},max-connections=4",
        "--export", "type=nbd,id=root,node-name=root,name=root,writable=off",
    ]  # fmt: skip


def qemu_command(engine: Engine, wiring: Wiring, spec: MachineSpec, disk: GoldenDisk) -> list[str]:
    """QEMU itself."""
    return [
        str(engine.qemu), "-nodefaults", "-no-user-config", "-display", "none", "-sandbox", _SANDBOX,
        "-accel", "kvm" if engine.accelerator is Accelerator.KVM else "tcg,thread=multi",
        "-cpu", engine.cpu_model, "-smp", str(spec.cpus), *_memory(wiring.memory, spec),
        *(_live(engine, wiring, disk) if isinstance(disk, LiveDisk) else _file(engine, wiring, disk)),
        *_network(spec.network),
        "-device", "virtio-rng-pci", "-device", "vmgenid,guid=auto",
        "-chardev", f"file,id=console,path={_word(wiring.console)},append=on", "-serial", "chardev:console",
        "-device", "virtio-serial-pci",
        *_port(1, "control", wiring.control), *_port(2, "events", wiring.events),
        "-qmp", f"unix:{_word(wiring.qmp)},server=on,wait=off",
    ]  # fmt: skip


def _memory(memory: Memory | None, spec: MachineSpec) -> list[str]:
    size = ["-m", f"{spec.memory_mib}M"]
    if memory is None:
        return ["-machine", "q35", *size]
    # A clone maps the file privately: the kernel copies a page when the guest writes to it.
    share = "off" if memory.cloned else "on"
    ram = f"memory-backend-file,id=ram,size={spec.memory_mib}M,mem-path={_word(memory.path)},share={share}"
    waiting = ["-S", "-incoming", "defer"] if memory.cloned else []
    return ["-machine", "q35,memory-backend=ram", "-object", ram, *size, *waiting]


def _live(engine: Engine, wiring: Wiring, disk: LiveDisk) -> list[str]:
    server = {"type": "unix", "path": str(wiring.nbd)}
    root = {"driver": "nbd", "node-name": "root", "server": server, "export": "root", "read-only": True}
    # Its socket has a name a moment before the storage daemon listens on it.
    root |= {"open-timeout": _LISTEN_SECONDS}
    kernel = disk.kernel_pvh if engine.pvh and disk.kernel_pvh else disk.kernel
    return [
        "-kernel", str(kernel), "-initrd", str(wiring.initrd),
        "-append", kernel_arguments(disk, engine.accelerator),
        "-blockdev", json.dumps(root), "-device", "virtio-blk-pci,drive=root,serial=root",
        *_overlay(wiring, "var"),
        "-device", "virtio-gpu-pci",
    ]  # fmt: skip


def _file(engine: Engine, wiring: Wiring, disk: DiskFile) -> list[str]:
    strings = [word for path in wiring.credentials for word in ("-smbios", f"type=11,path={_word(path)}")]
    # A bootloader under a BIOS knows no other display than a VGA.
    return [*_firmware(engine, wiring), *strings, *_cd(disk), *_overlay(wiring, "disk"), "-device", "virtio-vga"]


def _firmware(engine: Engine, wiring: Wiring) -> list[str]:
    if engine.firmware is None:
        return []
    words = ["-machine", "pflash0=code,pflash1=variables"]
    for name, path, form, read_only in (
        ("code", engine.firmware.code, engine.firmware.code_format, True),
        ("variables", wiring.variables, engine.firmware.variables_format, False),
    ):
        file = {"driver": "file", "filename": str(path), "read-only": read_only}
        words += ["-blockdev", json.dumps({"driver": form, "node-name": name, "read-only": read_only, "file": file})]
    return words


def _cd(disk: DiskFile) -> list[str]:
    if disk.format != "iso":
        return []
    file = {"driver": "file", "filename": str(disk.path), "read-only": True}
    node = {"driver": "raw", "node-name": "cd", "read-only": True, "file": file}
    return ["-blockdev", json.dumps(node), "-device", "ide-cd,drive=cd,bus=ide.0,bootindex=0"]


def _overlay(wiring: Wiring, serial: str) -> list[str]:
    # What a test machine writes dies with it: no need to wait for the host's disk.
    cache = {"direct": False, "no-flush": True}
    file = {"driver": "file", "filename": str(wiring.overlay), "cache": cache}
    node = {"driver": "qcow2", "node-name": serial, "file": file, "cache": cache, "discard": "unmap"}
    node |= {"detect-zeroes": "unmap"}
    return ["-blockdev", json.dumps(node), "-device", f"virtio-blk-pci,drive={serial},serial={serial}"]


def _network(network: Network) -> list[str]:
    if network is Network.NONE:
        return []
    restrict = "on" if network is Network.RESTRICTED else "off"
    return [
        "-netdev", f"user,id=net,restrict={restrict},hostfwd=tcp:127.0.0.1:0-:22",
        "-device", "virtio-net-pci,netdev=net,romfile=",
    ]  # fmt: skip


def _word(path: Path) -> str:
    """A path as a value among others: commas are doubled."""
    return str(path).replace(",", ",,")


def _port(number: int, name: str, path: Path) -> list[str]:
    return [
        "-chardev", f"socket,id={name},path={_word(path)},server=on,wait=off",
        "-device", f"virtserialport,chardev={name},nr={number},name=pytest-bootc.{name}",
    ]  # fmt: skip


def plan(engine: Engine, wiring: Wiring, spec: MachineSpec, disk: GoldenDisk) -> list[Mapping[str, object]]:
    """The processes of a machine, in the order of their start, as the supervisor reads them."""
    processes: list[Mapping[str, object]] = []
    log = wiring.console.with_name("qemu.log")
    after = None
    if isinstance(disk, LiveDisk):
        command = storage_command(engine, wiring, disk)
        processes.append({"name": "storage", "argv": command, "log": str(log), "after": None})
        after = str(wiring.nbd)
    command = qemu_command(engine, wiring, spec, disk)
    processes.append({"name": "qemu", "argv": command, "log": str(log), "after": after})
    return processes
