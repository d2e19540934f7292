"""What a machine brings along for a disk that boots by itself: system credentials of systemd.

They reach the guest in its SMBIOS tables (type 11, OEM strings), read by QEMU from files, so that no key is seen on a
command line; systemd >= 256 makes units, drop-ins and files of them (systemd.system-credentials(7), smbios-type-11(7),
systemd-debug-generator(8), tmpfiles.d(5)). Files below /etc are written by systemd-tmpfiles-setup.service, before
sysinit.target, and so before any sshd; what runs earlier is read from where PID 1 puts credentials.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from pytest_bootc.model import GuestFile

# Where PID 1 puts the credentials of the system, before it starts anything; root alone may read them.
_CREDENTIALS = PurePosixPath("/run/credentials/@system")
PROGRAMS = f"{_CREDENTIALS}/pytest-bootc."
"""What the path of a program begins with that units run earlier than files below /etc are written."""

_UNITS = PurePosixPath("/etc/systemd/system")


def credentials(files: Sequence[GuestFile]) -> dict[str, bytes]:
    """The files of a machine as credentials, by name.

    Units become ``systemd.extra-unit.*``, links in a target's ``.wants`` folder one ``systemd.unit-dropin.*`` for the
    target, files in the folder of credentials some of their own names, and all others ``tmpfiles.extra``.
    """
    made: dict[str, bytes] = {}
    wanted: dict[str, list[str]] = {}
    lines: list[str] = []
    for file in files:
        path = PurePosixPath(file.path)
        if path.parent == _CREDENTIALS and file.content is not None:
            made[path.name] = file.content
        elif path.parent == _UNITS and file.content is not None:
            made[f"systemd.extra-unit.{path.name}"] = file.content
        elif path.parent.parent == _UNITS and path.parent.suffix == ".wants":
            wanted.setdefault(path.parent.stem, []).append(path.name)
        else:
            lines.append(_line(file))
    for target, units in wanted.items():
        made[f"systemd.unit-dropin.{target}"] = f"[Unit]\nWants={' '.join(units)}\n".encode()
    made["tmpfiles.extra"] = "".join(f"{line}\n" for line in lines).encode()
    return made


def _line(file: GuestFile) -> str:
    """The line of tmpfiles.d(5) that makes a file, in place of one that is there."""
    if file.target is not None:
        return f"L+ {file.path} - - - - {file.target}"
    if file.content is None:
        return f"d {file.path} {file.mode:04o} root root -"
    return f"f+~ {file.path} {file.mode:04o} root root - {b64encode(file.content).decode()}"


def write_smbios_strings(named: Mapping[str, bytes], folder: Path) -> tuple[Path, ...]:
    """Write a file for each credential, in the form of an OEM string; only the user can read them."""
    folder.mkdir(mode=0o700, exist_ok=True)
    paths = []
    for number, (name, content) in enumerate(sorted(named.items())):
        path = folder / f"{number}"
        path.write_text(f"io.systemd.credential.binary:{name}={b64encode(content).decode()}")
        paths.append(path)
    return tuple(paths)
