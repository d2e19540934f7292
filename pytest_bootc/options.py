"""The options: one table, each with a flag, an ini key and an environment variable; and how they become a RunConfig.

The command line wins over the environment, the environment over the ini file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Literal, TypeVar

import pytest

from pytest_bootc.errors import BootcTestError, ConfigError
from pytest_bootc.image import ImageReference
from pytest_bootc.machine.base import backend_names
from pytest_bootc.model import Evidence, MachineSpec, Network, RunConfig

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

#: The suite that every other one stands on: it is always selected, and collected first.
BOOT_SUITE = "boot"

NEEDS_MARKER = (
    "needs(*words): what the machine must have for the test to run: program:NAME, unit:NAME, file:PATH, network, live. "
    "Without it the test is skipped, and says which"
)

_DEFAULT = RunConfig()
_DISK_FORMATS = (".qcow2", ".raw", ".img", ".iso")
_SIZE = re.compile(r"([0-9]+)([MG]?)i?B?", re.IGNORECASE)


@dataclass(frozen=True)
class Option:
    """One option. ``--vm-memory`` has the ini key ``bootc_vm_memory`` and the twin ``BOOTC_VM_MEMORY``."""

    flag: str
    metavar: str
    help: str
    many: bool = False

    @property
    def dest(self) -> str:
        """The attribute of ``config.option``, which is the ini key too."""
        return "bootc_" + self.flag.removeprefix("--").replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return self.dest.upper()


IMAGE = Option(
    "--image",
    "REF",
    "bootc image to boot and judge, as skopeo writes it: HOST/NAME[:TAG][@DIGEST], oci:FOLDER[:TAG], "
    "oci-archive:FILE. Repeat it to judge several",
    many=True,
)
SUITE = Option(
    "--suite",
    "NAME",
    f"shipped suite to run; repeat it, or separate names by commas. The suite {BOOT_SUITE!r} always runs first",
    many=True,
)
HOST = Option("--host", "[USER@]HOST[:PORT]", "judge a machine that runs already, over SSH, and boot none")
DISK = Option("--disk", "FILE", f"boot a disk image that exists ({', '.join(_DISK_FORMATS)}), with its own firmware")
BACKEND = Option("--backend", "NAME", "what runs the machine: qemu (the default), remote (with --host), fake")
NETWORK = Option(
    "--vm-network",
    "KIND",
    "what the guest reaches: user (all that this host does, the host's own loopback included; the default), "
    "restricted (nothing but what the run connects to it), none (no interface)",
)
MEMORY = Option("--vm-memory", "SIZE", f"the machine's RAM: MiB, or 2G or 512M (default {_DEFAULT.spec.memory_mib})")
CPUS = Option("--vm-cpus", "N", f"the machine's processors (default {_DEFAULT.spec.cpus})")
BOOT_TIMEOUT = Option(
    "--boot-timeout",
    "SECONDS",
    "how long a boot may take on a host with KVM; where guests are emulated it is multiplied by how much slower "
    f"they run (default {_DEFAULT.boot_timeout:g})",
)
QEMU = Option("--qemu", "PROGRAM", f"QEMU's program, by name or path (default {_DEFAULT.spec.qemu})")
EVIDENCE = Option(
    "--evidence", "WHEN", "keep console and journal of tests: on, off, or retain-on-failure (the default)"
)
EVIDENCE_DIR = Option(
    "--evidence-dir", "FOLDER", f"where evidence is kept, a folder per test (default {_DEFAULT.evidence_folder})"
)

OPTIONS = (
    IMAGE, SUITE, HOST, DISK, BACKEND, NETWORK, MEMORY, CPUS, BOOT_TIMEOUT, QEMU, EVIDENCE, EVIDENCE_DIR,
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What was said for an option, and where."""

    option: Option
    origin: str
    values: tuple[str, ...]

    @property
    def value(self) -> str:
        """The only value of an option that takes one."""
        return self.values[-1]

    @property
    def on_command_line(self) -> bool:
        """Whether somebody typed it for this very run."""
        return self.origin == self.option.flag

    def refusal(self, why: str, resolution: str) -> ConfigError:
        """The error for a value that cannot be taken; it names the place and quotes the value."""
        return ConfigError(f"{self.origin} {' '.join(self.values)}: {why}", resolution=resolution)


def add_options(parser: pytest.Parser) -> None:
    """Declare every option with its ini key."""
    group = parser.getgroup("bootc", "boot bootc images in virtual machines and judge them (each option has an ini "
                             "key bootc_... and an environment variable BOOTC_...)")  # fmt: skip
    for option in OPTIONS:
        group.addoption(
            option.flag,
            action="append" if option.many else "store",
            dest=option.dest,
            metavar=option.metavar,
            default=None,
            help=f"{option.help}. {option.variable}",
        )
        kind: Literal["args", "string"] = "args" if option.many else "string"
        parser.addini(option.dest, f"like {option.flag}", type=kind, default=None)


def lookup(config: pytest.Config, option: Option) -> Setting | None:
    """What was said for the option: on the command line, else in the environment, else in the ini file."""
    typed = config.getoption(option.dest)
    if typed:
        return Setting(option, option.flag, _words(option, [typed] if isinstance(typed, str) else typed))
    variable = os.environ.get(option.variable, "").strip()
    if variable:
        words = tuple(re.split(r"[\s,]+", variable)) if option.many else (variable,)
        return Setting(option, option.variable, tuple(word for word in words if word))
    written = config.getini(option.dest)
    if written:
        return Setting(option, f"{option.dest} =", _words(option, [written] if isinstance(written, str) else written))
    return None


def _words(option: Option, values: Sequence[str]) -> tuple[str, ...]:
    if option is SUITE:
        values = [word for value in values for word in re.split(r"[\s,]+", value) if word]
    return tuple(values)


def is_asked_for(config: pytest.Config) -> bool:
    """Whether this run judges anything. A suite alone counts when it was typed: then the subject is missing."""
    suite = lookup(config, SUITE)
    return any(lookup(config, option) for option in (IMAGE, HOST, DISK)) or bool(suite and suite.on_command_line)


def parse(config: pytest.Config, suites: Sequence[str]) -> RunConfig:
    """Everything that the options say; ``suites`` are the names that ``--suite`` may take.

    :raises ConfigError: an option cannot be read, or two of them do not go together.
    :raises ImageReferenceError: an image reference cannot be read.
    """
    said = {option: lookup(config, option) for option in OPTIONS}
    _check_subject(said)
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
    )


def usage_error(error: BootcTestError) -> pytest.UsageError:
    """The error as pytest ends a run with: exit status 4, the sentence, no traceback."""
    return pytest.UsageError(str(error))


def _check_subject(said: dict[Option, Setting | None]) -> None:
    subjects = [setting for option in (IMAGE, HOST, DISK) if (setting := said[option])]
    if not subjects:
        suite = said[SUITE]
        assert suite is not None, "only a typed suite brings us here without a subject"
        raise suite.refusal("there is nothing to run it on", "add --image REF, --disk FILE or --host HOST")
    if len(subjects) > 1:
        first, second, *_ = subjects
        raise ConfigError(
            f"{first.origin} and {second.origin} do not go together",
            details="\n".join(f"{subject.origin} {' '.join(subject.values)}" for subject in subjects),
            resolution="say one of them",
        )


def _backend(said: dict[Option, Setting | None]) -> str:
    host, setting = said[HOST], said[BACKEND]
    if setting is None:
        return "remote" if host else _DEFAULT.backend
    if setting.value not in backend_names():
        raise setting.refusal("there is no such backend", f"choose one of {', '.join(backend_names())}")
    if host and setting.value != "remote":
        raise setting.refusal(f"{host.origin} {host.value} runs already", f"leave {setting.origin} out")
    if not host and setting.value == "remote":
        raise setting.refusal("it is not said where", "add --host HOST")
    return setting.value


def _suites(setting: Setting | None, there: Sequence[str]) -> tuple[str, ...]:
    if setting is None:
        return ()
    for name in setting.values:
        if name not in there:
            raise setting.refusal(f"there is no suite {name!r}", f"choose from {', '.join(there)}")
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


def _one(setting: Setting | None, read: Callable[[Setting], T], default: T) -> T:
    return default if setting is None else read(setting)


def _each(setting: Setting | None, read: Callable[[str], T]) -> tuple[T, ...]:
    return () if setting is None else tuple(read(value) for value in setting.values)


def _reference(text: str) -> ImageReference:
    return ImageReference.parse(text)


def _path(setting: Setting) -> Path:
    return Path(setting.value)


def _disk(setting: Setting) -> Path | None:
    path = Path(setting.value).absolute()
    if not path.is_file():
        raise setting.refusal("there is no such file", "give the path of a disk image")
    if path.suffix not in _DISK_FORMATS:
        raise setting.refusal("its name does not say what it is", f"end it with one of {', '.join(_DISK_FORMATS)}")
    return path


def _host(setting: Setting) -> str | None:
    if not re.fullmatch(r"([^@\s]+@)?(\[[0-9a-fA-F:]+\]|[^@:\s\[\]]+)(:[0-9]{1,5})?", setting.value):
        raise setting.refusal(
            "this is not a host", "write HOST, USER@HOST or USER@HOST:PORT; an IPv6 address in [brackets]"
        )
    return setting.value


def _word_of(kind: type[E]) -> Callable[[Setting], E]:
    def read(setting: Setting) -> E:
        for member in kind:
            if member.value == setting.value:
                return member
        raise setting.refusal(
            "there is no such word", f"choose one of {', '.join(str(member.value) for member in kind)}"
        )

    return read


def _mebibytes(setting: Setting) -> int:
    size = _SIZE.fullmatch(setting.value)
    amount = int(size[1]) * (1024 if size[2].upper() == "G" else 1) if size else 0
    if amount < 128:
        raise setting.refusal("this is not a size of RAM", "write MiB, or 2G, or 512M; at least 128")
    return amount


def _count(setting: Setting) -> int:
    if not setting.value.isdecimal() or not 1 <= int(setting.value) <= 255:
        raise setting.refusal("this is not a number of processors", "write a whole number from 1 to 255")
    return int(setting.value)


def _seconds(setting: Setting) -> float:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", setting.value) or float(setting.value) <= 0:
        raise setting.refusal("this is not a time", "write seconds, more than 0")
    return float(setting.value)
