"""UEFI for a machine: the host's own firmware images, found by the descriptions that come with them.

Distributions install OVMF (edk2) under different names and in different formats, and each with a description in JSON
for programs that run QEMU (docs/interop/firmware.json in QEMU's source).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pytest_bootc.errors import ConfigError

# Secure Boot would judge who signed the disk, not what runs on it.
_UNWANTED = {"enrolled-keys", "requires-smm"}
_ARCHITECTURE, _MACHINE = "x86_64", "pc-q35-7.2"


@dataclass(frozen=True)
class Firmware:
    """The program, which all machines share, and the variables that each has a copy of; formats in QEMU's words."""

    code: Path
    code_format: str
    variables: Path
    variables_format: str


def descriptor_folders() -> tuple[Path, ...]:
    """Where descriptions are, the most important folder first."""
    own = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return (Path(own) / "qemu/firmware", Path("/etc/qemu/firmware"), Path("/usr/share/qemu/firmware"))


def find_firmware(folders: Sequence[Path]) -> Firmware:
    """The UEFI firmware without Secure Boot that the host's administrator, or else its distribution, prefers.

    :raises ConfigError: the host has none.
    """
    # A description in an earlier folder replaces one of the same name in a later one; their names say the order.
    described = {path.name: path for folder in reversed(folders) for path in folder.glob("*.json")}
    seen = []
    for _, path in sorted(described.items()):
        try:
            found = _firmware(json.loads(path.read_text()))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            seen.append(f"{path}: cannot be read ({type(error).__name__}: {error})")
            continue
        if found is not None and found.code.is_file() and found.variables.is_file():
            return found
        seen.append(f"{path}: {'its files are missing' if found else 'for other machines'}")
    raise ConfigError(
        "the disk boots by UEFI, and this host has no UEFI firmware for QEMU",
        details="\n".join(seen) or f"no description of one in {', '.join(map(str, folders))}",
        resolution="install it (Debian: ovmf, Fedora: edk2-ovmf), or give a disk without an EFI system partition",
    )


def _firmware(description: dict[str, Any]) -> Firmware | None:
    """What a description describes; ``None`` where it is not for our machines."""
    mapping = description["mapping"]
    if "uefi" not in description["interface-types"] or mapping["device"] != "flash":
        return None
    if mapping.get("mode", "split") != "split" or _UNWANTED & set(description["features"]):
        return None
    if not any(_is_ours(target) for target in description["targets"]):
        return None
    code, variables = mapping["executable"], mapping["nvram-template"]
    return Firmware(Path(code["filename"]), code["format"], Path(variables["filename"]), variables["format"])


def _is_ours(target: dict[str, Any]) -> bool:
    return target["architecture"] == _ARCHITECTURE and any(fnmatchcase(_MACHINE, name) for name in target["machines"])
