"""The nouns that the layers hand to each other: frozen values, nothing that acts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from pytest_bootc.image import Digest, ImageReference


@dataclass(frozen=True)
class Layer:
    """One layer of an image: the blob as transported, and the tar that it unpacks to.

    ``digest`` is of the (mostly compressed) blob, ``diff_id`` of the uncompressed tar (OCI image-spec, config.md);
    ``size`` is the blob's, in bytes.
    """

    digest: Digest
    diff_id: Digest
    media_type: str
    size: int


@dataclass(frozen=True)
class ResolvedImage:
    """An image whose reference has been resolved to one manifest for one architecture.

    ``digest`` is the manifest's (never an index's), ``config`` the parsed image configuration, ``layers`` bottom first.
    """

    reference: ImageReference
    digest: Digest
    architecture: str
    config: Mapping[str, object]
    layers: tuple[Layer, ...]

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of the image configuration."""
        inner = self.config.get("config")
        labels = inner.get("Labels") if isinstance(inner, Mapping) else None
        return dict(labels) if isinstance(labels, Mapping) else {}


class DiskKind(Enum):
    """How the image's files came onto the disk, and so what a verdict on it can mean."""

    LIVE = "live"
    FILE = "file"


class Scope(Enum):
    """What a verdict covers."""

    RUNNING_SYSTEM = "running system"


class Network(Enum):
    """What the guest reaches: everything the host does, only what the run forwards to it, or no interface at all."""

    USER = "user"
    RESTRICTED = "restricted"
    NONE = "none"


class Accelerator(Enum):
    """What executes the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


INJECT_FOLDER = "inject/etc"
"""Where in the initramfs of a live disk the files lie that a machine brings along for /etc."""


@dataclass(frozen=True)
class GuestFile:
    """A file, link or folder that the machine brings along, below /etc.

    ``path`` is absolute in the guest; ``mode`` the permission bits; exactly one of ``content`` and ``target``
    (of a symbolic link) is set, neither for a folder. The owner is root.
    """

    path: str
    mode: int = 0o644
    content: bytes | None = None
    target: str | None = None


@dataclass(frozen=True)
class LiveDisk:
    """A golden disk of the kind *live*: the layers as one read-only root, and a writable /var to copy.

    ``root`` is the root file system as a file of ``root_format`` (``vmdk``: a flat description, or ``raw``), ``var``
    a raw file, ``initramfs`` the part that is the same for every machine. ``kernel_pvh`` is the same kernel as
    ``kernel`` (a bzImage) in the form that boots faster, where it has one. ``isa_level`` is what the C library needs
    (``x86-64-v1`` ...). ``folders`` has the permission bits of the image's folders below /etc, ``losses`` a line for
    everything in which the disk falls short of the image, ``notes`` what else a reader of the verdict must know.
    """

    key: str
    image: ResolvedImage
    folder: Path
    root: Path
    root_format: str
    root_type: str
    var: Path
    kernel: Path
    kernel_pvh: Path | None
    kernel_release: str
    kernel_arguments: tuple[str, ...]
    initramfs: Path
    isa_level: str
    ssh_units: tuple[str, ...]
    folders: Mapping[str, int] = field(repr=False)
    losses: tuple[str, ...]
    notes: tuple[str, ...]
    layers: tuple[Path, ...] = field(repr=False)


@dataclass(frozen=True)
class DiskFile:
    """A disk image that the user made (``--disk``); it boots by its own bootloader and is never written to.

    ``format`` is ``raw``, ``qcow2`` or ``iso``; ``uefi`` says for which firmware it is made.
    """

    path: Path
    format: str
    uefi: bool


GoldenDisk = LiveDisk | DiskFile


@dataclass(frozen=True)
class MachineSpec:
    """The shape of a machine. Memory in MiB, the size of /var in GiB."""

    memory_mib: int = 2048
    cpus: int = 2
    network: Network = Network.USER
    var_gib: int = 40
    qemu: str = "qemu-system-x86_64"


@dataclass(frozen=True)
class SSHEndpoint:
    """Where and as whom to log in.

    ``private_key`` is the text of an OpenSSH private key, or ``None``: then the user's agent and key files are
    used. ``host_key`` pins the server's key as ``ssh-ed25519 AAAA...``; ``None`` trusts the user's known_hosts.
    """

    host: str
    port: int
    user: str = "root"
    private_key: str | None = field(repr=False, default=None)
    host_key: str | None = None


@dataclass(frozen=True)
class HeldLogin:
    """A login between two processes: the descriptor of its connection, and a secret that belongs to it, as text."""

    descriptor: int
    state: str


class Evidence(Enum):
    """When evidence is kept."""

    ON = "on"
    OFF = "off"
    RETAIN_ON_FAILURE = "retain-on-failure"


@dataclass(frozen=True)
class RunConfig:
    """Everything that the options said, parsed. One is made per run and never changes.

    ``boot_timeout`` is in seconds of a host with KVM; where guests are emulated it is multiplied. ``keep_vm_idle`` is
    for how many seconds nobody may have used a machine that is kept.
    """

    images: tuple[ImageReference, ...] = ()
    suites: tuple[str, ...] = ()
    backend: str = "qemu"
    host: str | None = None
    disk: DiskFile | None = None
    spec: MachineSpec = MachineSpec()
    evidence: Evidence = Evidence.RETAIN_ON_FAILURE
    evidence_folder: Path = Path("test-results")
    boot_timeout: float = 120.0
    rerun_failed: bool = False
    exemptions: tuple[Path, ...] = ()
    cold: bool = False
    keep_vm: bool = False
    keep_vm_idle: float = 1800.0


class Trouble(Enum):
    """What can go wrong in a guest without any test's asking, in the words of reports, exemptions and markers."""

    PANIC = "panic"
    OOPS = "oops"
    LOCKUP = "lockup"
    INITRAMFS = "initramfs"
    EMERGENCY_SHELL = "emergency-shell"
    FROZEN_INIT = "frozen-init"
    OOM = "oom"
    ORDERING_CYCLE = "ordering-cycle"
    FAILED_UNIT = "failed-unit"
    STUCK_JOB = "stuck-job"
    COREDUMP = "coredump"
    AVC = "avc"

    @property
    def fatal(self) -> bool:
        """Whether nothing that the machine does afterwards can be believed."""
        return self in _FATAL


_FATAL = frozenset(
    (
        Trouble.PANIC,
        Trouble.OOPS,
        Trouble.LOCKUP,
        Trouble.INITRAMFS,
        Trouble.EMERGENCY_SHELL,
        Trouble.FROZEN_INIT,
    )
)


@dataclass(frozen=True)
class Finding:
    """Trouble that was found in a guest: its kind, and the line that tells it, or the name of what failed."""

    kind: Trouble
    text: str

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.text}"


@dataclass(frozen=True)
class MachineFacts:
    """What a report says about a machine.

    ``time_factor``: how much slower than a KVM guest, for deadlines; ``origin``: how it came to run.
    """

    backend: str
    accelerator: str
    emulator: str
    kernel_arguments: str
    scope: Scope
    time_factor: float = 1.0
    notes: tuple[str, ...] = ()
    origin: str = ""
