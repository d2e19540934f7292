"""How the options become a RunConfig, and what is said where they cannot."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TypeVar

import pytest

from pytest_bootc.disk.file import open_disk_file
from pytest_bootc.errors import BootcTestError, ConfigError
from pytest_bootc.image import ImageReference
from pytest_bootc.machine.base import backend_names
from pytest_bootc.model import DiskFile, Evidence, MachineSpec, Network, RunConfig
from pytest_bootc.options import (
    BACKEND,
    BOOT_SUITE,
    BOOT_TIMEOUT,
    COLD,
    CPUS,
    DISK,
    EVIDENCE,
    EVIDENCE_DIR,
    EXEMPTIONS,
    HOST,
    IMAGE,
    KEEP_VM,
    KEEP_VM_IDLE,
    MEMORY,
    NETWORK,
    OPTIONS,
    QEMU,
    RERUN_FAILED,
    SUITE,
    Option,
    Setting,
    lookup,
)  # fmt: skip

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

_DEFAULT = RunConfig()
_SIZE = re.compile(r"([0-9]+)([MG]?)i?B?", re.IGNORECASE)

_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smh]?)")
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}

_SWITCHES = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}


def parse(config: pytest.Config, suites: Sequence[str]) -> RunConfig:
    """Everything that the options say; ``suites`` are the names that ``--suite`` may take.

    :raises ConfigError: an option cannot be read, or two of them do not go together.
    :raises ImageReferenceError: an image reference cannot be read.
    """
    said = {option: lookup(config, option) for option in OPTIONS}
    _check_subject(said)
    _check_keeping(said)
    return RunConfig(
        images=tuple(dict.fromkeys(_each(said[IMAGE], _reference))),
        suites=_suites(said[SUITE], suites),
        backend=_backend(said),
        host=_one(said[HOST], _host, None),
        disk=_one(said[DISK], _disk, None),
        spec=_spec(said),
        evidence=_one(said[EVIDENCE], _word_of(Evidence), _DEFAULT.evidence),
        evidence_folder=config.invocation_params.dir / _one(said[EVIDENCE_DIR], _path, _DEFAULT.evidence_folder),
        boot_timeout=_one(said[BOOT_TIMEOUT], _seconds, _DEFAULT.boot_timeout),
        rerun_failed=_one(said[RERUN_FAILED], _switch, _DEFAULT.rerun_failed),
        exemptions=tuple(config.invocation_params.dir / path for path in _each(said[EXEMPTIONS], Path)),
        cold=_one(said[COLD], _switch, _DEFAULT.cold),
        keep_vm=_one(said[KEEP_VM], _switch, _DEFAULT.keep_vm),
        keep_vm_idle=_one(said[KEEP_VM_IDLE], _span, _DEFAULT.keep_vm_idle),
    )


def usage_error(error: BootcTestError) -> pytest.UsageError:
    """The error as pytest ends a run with: exit status 4, the sentence, no traceback."""
    return pytest.UsageError(str(error))


def _check_subject(said: dict[Option, Setting | None]) -> None:
    subjects = [setting for option in (IMAGE, HOST, DISK) if (setting := said[option])]
    if not subjects:
        suite = said[SUITE]
        assert suite is not None, "only a typed suite brings us here without a subject"
        raise _refusal(suite, "there is nothing to run it on", "add --image REF, --disk FILE or --host HOST")
    if len(subjects) > 1:
        first, second, *_ = subjects
        raise ConfigError(
            f"{first.origin} and {second.origin} do not go together",
            details="\n".join(f"{subject.origin} {' '.join(subject.values)}" for subject in subjects),
            resolution="say one of them",
        )


def _check_keeping(said: dict[Option, Setting | None]) -> None:
    host, keep = said[HOST], said[KEEP_VM]
    if host is not None and keep is not None and keep.on_command_line and _switch(keep):
        raise _refusal(keep, f"{host.origin} {host.value} is no machine of this run", f"leave {keep.origin} out")


def _backend(said: dict[Option, Setting | None]) -> str:
    host, setting = said[HOST], said[BACKEND]
    if setting is None:
        return "remote" if host else _DEFAULT.backend
    if setting.value not in backend_names():
        raise _refusal(setting, "there is no such backend", f"choose one of {', '.join(backend_names())}")
    if host and setting.value != "remote":
        raise _refusal(setting, f"{host.origin} {host.value} runs already", f"leave {setting.origin} out")
    if not host and setting.value == "remote":
        raise _refusal(setting, "it is not said where", "add --host HOST")
    return setting.value


def _suites(setting: Setting | None, there: Sequence[str]) -> tuple[str, ...]:
    if setting is None:
        return ()
    for name in setting.values:
        if name not in there:
            raise _refusal(setting, f"there is no suite {name!r}", f"choose from {', '.join(there)}")
    first = (BOOT_SUITE,) if BOOT_SUITE in there else ()
    return tuple(dict.fromkeys((*first, *setting.values)))


def _spec(said: dict[Option, Setting | None]) -> MachineSpec:
    spec = _DEFAULT.spec
    return replace(
        spec,
        memory_mib=_one(said[MEMORY], _mebibytes, spec.memory_mib),
        cpus=_one(said[CPUS], _count, spec.cpus),
        network=_one(said[NETWORK], _word_of(Network), spec.network),
        qemu=_one(said[QEMU], lambda setting: setting.value, spec.qemu),
    )


def _refusal(setting: Setting, why: str, resolution: str) -> ConfigError:
    """The error for a value that cannot be taken; it names the place and quotes the value."""
    return ConfigError(f"{setting.origin} {' '.join(setting.values)}: {why}", resolution=resolution)


def _one(setting: Setting | None, read: Callable[[Setting], T], default: T) -> T:
    return default if setting is None else read(setting)


def _each(setting: Setting | None, read: Callable[[str], T]) -> tuple[T, ...]:
    return () if setting is None else tuple(read(value) for value in setting.values)


def _reference(text: str) -> ImageReference:
    return ImageReference.parse(text)


def _path(setting: Setting) -> Path:
    return Path(setting.value)


def _disk(setting: Setting) -> DiskFile | None:
    path = Path(setting.value).absolute()
    if not path.exists():
        raise _refusal(setting, "there is no such file", "give the path of a disk image")
    return open_disk_file(path)


def _host(setting: Setting) -> str | None:
    if not re.fullmatch(r"([^@\s]+@)?(\[[0-9a-fA-F:]+\]|[^@:\s\[\]]+)(:[0-9]{1,5})?", setting.value):
        raise _refusal(
            setting, "this is not a host", "write HOST, USER@HOST or USER@HOST:PORT; an IPv6 address in [brackets]"
        )
    return setting.value


def _word_of(kind: type[E]) -> Callable[[Setting], E]:
    def read(setting: Setting) -> E:
        for member in kind:
            if member.value == setting.value:
                return member
        raise _refusal(
            setting, "there is no such word", f"choose one of {', '.join(str(member.value) for member in kind)}"
        )

    return read


def _mebibytes(setting: Setting) -> int:
    size = _SIZE.fullmatch(setting.value)
    amount = int(size[1]) * (1024 if size[2].upper() == "G" else 1) if size else 0
    if amount < 128:
        raise _refusal(setting, "this is not a size of RAM", "write MiB, or 2G, or 512M; at least 128")
    return amount


def _switch(setting: Setting) -> bool:
    word = setting.value.lower()
    if word not in _SWITCHES:
        raise _refusal(setting, "this is neither yes nor no", f"write one of {', '.join(_SWITCHES)}")
    return _SWITCHES[word]


def _count(setting: Setting) -> int:
    if not setting.value.isdecimal() or not 1 <= int(setting.value) <= 255:
        raise _refusal(setting, "this is not a number of processors", "write a whole number from 1 to 255")
    return int(setting.value)


def _span(setting: Setting) -> float:
    match = _SPAN.fullmatch(setting.value)
    if match is None or float(match[1]) <= 0:
        raise _refusal(setting, "this is not a time", "write seconds, or 30m, or 2h; more than 0")
    return float(match[1]) * _UNITS[match[2]]


def _seconds(setting: Setting) -> float:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", setting.value) or float(setting.value) <= 0:
        raise _refusal(setting, "this is not a time", "write seconds, more than 0")
    return float(setting.value)
