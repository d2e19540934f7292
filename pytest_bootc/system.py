"""What the guest's own files and programs say about it, asked in as few commands as possible.

Every command costs an emulated guest a tenth of a second and more. The scripts are POSIX sh, and need nothing that
busybox does not have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_bootc.capabilities import FileCapabilities
from pytest_bootc.errors import GuestError

_SEPARATOR = "\x1e"
# Everything that GuestFacts has, each behind a separator and its name.
_FACTS = r"""
section() { printf '\036%s\n' "$1"; }
section os_release; cat /etc/os-release 2>/dev/null || cat /usr/lib/os-release
section kernel_release; uname -r
section architecture; uname -m
section hostname; cat /proc/sys/kernel/hostname
section boot_id; cat /proc/sys/kernel/random/boot_id
section uptime; cat /proc/uptime
section kernel_arguments; cat /proc/cmdline
section taint; cat /proc/sys/kernel/tainted
section selinux; cat /sys/fs/selinux/enforce 2>/dev/null
section user; id -u
section package_managers; for name in rpm dpkg flatpak; do ! command -v "$name" >/dev/null || echo "$name"; done
"""
_PACKAGE = r"""
section() { printf '\036%s\n%s' "$1" "$2"; }
! command -v rpm >/dev/null || ! found=$(rpm -q --queryformat '%{VERSION}-%{RELEASE}\n' -- "$1") || section rpm "$found"
! command -v dpkg-query >/dev/null ||
  ! found=$(dpkg-query --show --showformat '${db:Status-Status} ${Version}\n' -- "$1" 2>/dev/null) ||
  section dpkg "$found"
! command -v flatpak >/dev/null || section flatpak "$(flatpak list --columns=application,version)"
"""
_CAPABILITIES = r"""
[ -e "$1" ] || { echo "$1: no such file" >&2; exit 1; }
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
if command -v getcap >/dev/null; then printf '\036getcap\n'; getcap -- "$1"
elif command -v getfattr >/dev/null; then
  printf '\036getfattr\n'; getfattr --absolute-names --name=security.capability --encoding=hex -- "$1" 2>/dev/null || :
else echo "the guest has neither getcap nor getfattr" >&2; exit 1; fi
"""
_HASH_LINE = re.compile(r"(?P<escaped>\\?)(?P<hash>[0-9a-f]{64}) [ *](?P<path>.*)", re.DOTALL)
_LISTEN = "0A"  # TCP_LISTEN, include/net/tcp_states.h
_SELINUX = {"1": "enforcing", "0": "permissive", "": "off"}


@dataclass(frozen=True)
class GuestFacts:
    """What a guest is, as one command told it.

    ``uptime`` is in seconds; ``taint`` is the kernel's own bit mask (0: not tainted); ``selinux`` is ``enforcing``,
    ``permissive`` or ``off``; ``user`` the id of the user who asked.
    """

    os_release: Mapping[str, str]
    kernel_release: str
    architecture: str
    hostname: str
    boot_id: str
    uptime: float
    kernel_arguments: str
    taint: int
    selinux: str
    user: int
    package_managers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mount:
    """A mount, as proc_pid_mountinfo(5) has it. ``root`` is the part of the file system that is mounted."""

    target: str
    source: str
    type: str
    options: tuple[str, ...]
    root: str = "/"
    device: str = field(repr=False, default="")
    super_options: tuple[str, ...] = field(repr=False, default=())

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written through this mount."""
        return "ro" in self.options or "ro" in self.super_options


@dataclass(frozen=True)
class Package:
    """An installed package."""

    manager: str
    name: str
    version: str


def facts_command() -> Sequence[str]:
    """The command for :func:`parse_facts`."""
    return ("sh", "-c", _FACTS)


def parse_facts(text: str) -> GuestFacts:
    """What the command of :func:`facts_command` printed.

    :raises GuestError: something that every Linux has is missing in it.
    """
    told = sections(text)
    try:
        return GuestFacts(
            os_release=parse_os_release(told["os_release"]),
            kernel_release=told["kernel_release"],
            architecture=told["architecture"],
            hostname=told["hostname"],
            boot_id=told["boot_id"],
            uptime=float(told["uptime"].split()[0]),
            kernel_arguments=told["kernel_arguments"],
            taint=int(told["taint"]),
            selinux=_SELINUX[told["selinux"]],
            user=int(told["user"]),
            package_managers=tuple(told["package_managers"].split()),
        )
    except (KeyError, ValueError, IndexError) as error:
        raise GuestError("the guest's facts cannot be read", details=f"{error!r} in\n{text}") from error


def parse_os_release(text: str) -> Mapping[str, str]:
    """The assignments of an os-release(5) file, unquoted as a shell would."""
    assignments = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name: _unquoted(value.strip()) for name, _, value in assignments}


def parse_mounts(text: str) -> list[Mount]:
    """The mounts of a mountinfo file, in the order in which they were made."""
    mounts = []
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        if not separator:
            raise GuestError("mountinfo cannot be read", details=line)
        _, _, device, root, target, options, *_ = left.split(" ")
        kind, source, super_options = right.split(" ", 2)
        mounts.append(
            Mount(
                target=_unescaped(target),
                source=_unescaped(source),
                type=kind,
                options=tuple(options.split(",")),
                root=_unescaped(root),
                device=device,
                super_options=tuple(super_options.split(",")),
            )
        )
    return mounts


def package_command(name: str) -> Sequence[str]:
    """The command that asks every package manager of the guest for a package."""
    return ("sh", "-c", _PACKAGE, "sh", name)


def parse_package(text: str, name: str) -> Package | None:
    """The package among what the command of :func:`package_command` printed, if it is installed."""
    told = sections(text)
    if told.get("rpm"):
        return Package("rpm", name, told["rpm"].splitlines()[0])
    for line in told.get("dpkg", "").splitlines():
        state, _, version = line.partition(" ")
        if state == "installed":
            return Package("dpkg", name, version)
    for line in told.get("flatpak", "").splitlines():
        application, _, version = line.partition("\t")
        if application == name:
            return Package("flatpak", name, version.strip())
    return None


def capabilities_command(path: str) -> Sequence[str]:
    """The command that reads a file's capabilities by whichever program the guest has for that."""
    return ("sh", "-c", _CAPABILITIES, "sh", path)


def parse_capabilities(text: str, path: str) -> FileCapabilities:
    """What the command of :func:`capabilities_command` printed."""
    told = sections(text)
    if "getcap" in told:
        return FileCapabilities.from_text(told["getcap"].removeprefix(path).strip())
    value = re.search(r"^security\.capability=0x([0-9a-fA-F]+)$", told.get("getfattr", ""), re.MULTILINE)
    return FileCapabilities.from_xattr(bytes.fromhex(value[1])) if value else FileCapabilities()


def listening_command() -> Sequence[str]:
    """The command for :func:`parse_listening`."""
    return ("sh", "-c", "cat /proc/net/tcp; ! [ -e /proc/net/tcp6 ] || cat /proc/net/tcp6")


def parse_listening(text: str) -> set[int]:
    """The TCP ports on which somebody listens, of what proc_net(5) has as ``tcp`` and ``tcp6``."""
    rows = (line.split() for line in text.splitlines())
    return {int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == _LISTEN}


def hash_command() -> Sequence[str]:
    """The command that hashes the files whose paths, each ended by a NUL, come on its standard input."""
    return ("xargs", "-0", "sha256sum", "--")


def parse_hashes(text: str) -> Mapping[str, str]:
    """Path and SHA-256 (64 hexadecimal digits) of what sha256sum(1) printed.

    A line that starts with a backslash has its path escaped.
    """
    hashes = {}
    for line in text.splitlines():
        found = _HASH_LINE.fullmatch(line)
        if found is None:
            raise GuestError("sha256sum printed something that cannot be read", details=line)
        path = found["path"]
        if found["escaped"]:
            path = re.sub(r"\\([nr\\])", lambda match: {"n": "\n", "r": "\r", "\\": "\\"}[match[1]], path)
        hashes[path] = found["hash"]
    return hashes


def sections(text: str) -> dict[str, str]:
    """The parts of a script's output, by the names behind their separators; what comes before the first is noise."""
    parts = (part.partition("\n") for part in text.split(_SEPARATOR)[1:])
    return {name: content.strip("\n") for name, _, content in parts}


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1]
    if quoted and value[0] == '"':
        return re.sub(r'\\(["$`\\])', r"\1", value[1:-1])
    return value[1:-1] if quoted and value[0] == "'" else value


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
