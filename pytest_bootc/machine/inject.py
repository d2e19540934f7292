"""What a machine brings along, so that nothing is baked into an image: keys, an agent, readiness.

Everything lies below /etc: in an image /root and /home are mostly links into an empty /var. On a live disk the files
are a lower layer of the overlay on /etc; the image's own files are not touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from pytest_bootc import cpio
from pytest_bootc.machine.control import AGENT, READY
from pytest_bootc.model import INJECT_FOLDER, GuestFile

_FOLDER = "/etc/pytest-bootc"
_UNITS = "/etc/systemd/system"

# It sorts before the image's own drop-ins (Fedora's begin with 20-, 40-, 50-); sshd takes the first value it reads.
_SSHD = f"""\
AuthorizedKeysFile {_FOLDER}/authorized_keys .ssh/authorized_keys
HostKey {_FOLDER}/ssh_host_ed25519_key
PermitRootLogin prohibit-password
"""

# No default dependencies: the agent is to answer while the boot hangs, and in the emergency shell too. Not in a disk's
# initramfs, though, which reads the same credentials: it would not live to see the system.
_AGENT_UNIT = """\
[Unit]
Description=Control channel of the test machine
DefaultDependencies=no
IgnoreOnIsolate=yes
ConditionPathExists=!/etc/initrd-release
[Service]
ExecStart=/bin/sh {agent}
Restart=always
OOMScoreAdjust=-900
IgnoreSIGPIPE=no
"""
_READY_UNIT = """\
[Unit]
Description=Tell the host that the test machine can be reached
After={ssh_units}
[Service]
Type=exec
ExecStart=/bin/sh {ready}
"""


@dataclass(frozen=True)
class Identity:
    """The keys of one machine: the private keys as OpenSSH texts, the public ones as ``ssh-ed25519 AAAA...``."""

    user_private: str = field(repr=False)
    user_public: str
    host_private: str = field(repr=False)
    host_public: str

    @classmethod
    def generate(cls) -> Identity:
        """Fresh keys."""
        return cls(*_key_pair(), *_key_pair())


def _key_pair() -> tuple[str, str]:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return private, public


def guest_files(identity: Identity, ssh_units: Sequence[str], programs: str = f"{_FOLDER}/") -> list[GuestFile]:
    """The files of a machine whose image starts sshd by one of these units (none: it has no sshd).

    ``programs`` is what the paths of the programs that units run begin with.
    """
    agent, ready = f"{programs}agent", f"{programs}ready"
    agent_unit = _AGENT_UNIT.format(agent=agent)
    ready_unit = _READY_UNIT.format(ready=ready, ssh_units=" ".join(ssh_units))
    return [
        GuestFile(agent, 0o755, AGENT.encode()),
        GuestFile(ready, 0o755, READY.encode()),
        GuestFile(f"{_FOLDER}/authorized_keys", 0o600, identity.user_public.encode() + b"\n"),
        GuestFile(f"{_FOLDER}/ssh_host_ed25519_key", 0o600, identity.host_private.encode()),
        GuestFile(f"{_FOLDER}/ssh_host_ed25519_key.pub", 0o644, identity.host_public.encode() + b"\n"),
        GuestFile("/etc/ssh/sshd_config.d/00-pytest-bootc.conf", 0o600, _SSHD.encode()),
        GuestFile(f"{_UNITS}/pytest-bootc-agent.service", content=agent_unit.encode()),
        GuestFile(f"{_UNITS}/pytest-bootc-ready.service", content=ready_unit.encode()),
        _wanted("sysinit.target", "pytest-bootc-agent.service"),
        _wanted("emergency.target", "pytest-bootc-agent.service"),
        _wanted("multi-user.target", "pytest-bootc-ready.service"),
    ]


def _wanted(target: str, unit: str) -> GuestFile:
    return GuestFile(f"{_UNITS}/{target}.wants/{unit}", target=f"../{unit}")


def inject_archive(files: Sequence[GuestFile], folders: Mapping[str, int]) -> bytes:
    """The files as an initramfs archive to append to the one of the disk.

    ``folders`` has the permission bits of folders in the image: in an overlay the upper folder's attributes win.
    """
    entries: list[cpio.CpioEntry] = []
    made: set[str] = set()
    for file in files:
        for parent in reversed(PurePosixPath(file.path).parents):
            path = str(parent)
            if path.startswith("/etc") and path not in made:
                made.add(path)
                entries.append(cpio.folder(_place(path), folders.get(path, 0o755)))
        if file.target is not None:
            entries.append(cpio.link(_place(file.path), file.target))
        elif file.content is not None:
            entries.append(cpio.file(_place(file.path), file.content, file.mode))
        else:
            made.add(file.path)
            entries.append(cpio.folder(_place(file.path), file.mode))
    return cpio.archive(entries)


def _place(path: str) -> str:
    return INJECT_FOLDER + path.removeprefix("/etc")
