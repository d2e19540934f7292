"""The options: one table, each with a flag, an ini key and an environment variable.

The command line wins over the environment, the environment over the ini file. Every run of pytest imports this
module, also those that want nothing of it, so it imports no other of the package and makes no dataclass.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import pytest

#: The suite that every other one stands on: it is always selected, and collected first.
BOOT_SUITE = "boot"

NEEDS_MARKER = (
    "needs(*words): what the machine must have for the test to run; without it the test is skipped, and says which. "
    "Features write it as a tag: @needs.program.podman, @needs.unit.a.service, @needs.file:/etc/a, @needs.network, and "
    "%20 for a space. Words are program:NAME, unit:NAME, user-unit:NAME, file:PATH, package:NAME, flatpak:ID, "
    "app:ID (of its desktop file), extension:UUID (of GNOME Shell), container-image:NAME (in root's Podman), "
    "ujust:RECIPE or ujust:RECIPE=TEXT (TEXT is in the recipe), setting:SCHEMA (of gsettings), "
    "command:LINE (of shell, that exits with 0), and brew, user (somebody with an id from 1000 to 60000), selinux, "
    "deployment (of bootc or ostree), tpm, wayland (a user's compositor runs), wireless, network, live, installed_disk"
)
IMAGE_MARKER = (
    "image(*names): the test is for images of these names only: the last part of the reference (or, with --host and "
    "--disk, one of ID, VARIANT_ID and IMAGE_ID in os-release) contains one of them. Features write it as a tag: "
    "@image.bluefin"
)
EXPECTS_MARKER = (
    "expects_trouble(*words, reason): what the test does to its guest on purpose, and why, so that it does not count: "
    "panic, oops, lockup, initramfs, emergency-shell, frozen-init, oom, ordering-cycle, failed-unit, stuck-job, "
    "coredump, avc"
)
MUTATES_MARKER = (
    "mutates: the test changes its machine in a way that others must not see; what comes after it gets a clean one"
)
SERIAL_MARKER = (
    "serial(group=''): under pytest-xdist, tests of the same group run on one worker, one after the other, whatever "
    "--dist says (but each)"
)
MARKERS = (NEEDS_MARKER, IMAGE_MARKER, EXPECTS_MARKER, MUTATES_MARKER, SERIAL_MARKER)


class Option(NamedTuple):
    """One option. ``--vm-memory`` has the ini key ``bootc_vm_memory`` and the twin ``BOOTC_VM_MEMORY``."""

    flag: str
    metavar: str
    help: str
    many: bool = False
    switch: bool = False

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
    "oci-archive:FILE, containers-storage:NAME. Repeat it to judge several",
    many=True,
)
SUITE = Option(
    "--suite",
    "NAME",
    f"shipped suite to run; repeat it, or separate names by commas. The suite {BOOT_SUITE!r} always runs first",
    many=True,
)
HOST = Option("--host", "[USER@]HOST[:PORT]", "judge a machine that runs already, over SSH, and boot none")
DISK = Option(
    "--disk",
    "FILE",
    "boot a disk image that exists, by its own bootloader (raw, qcow2 or an ISO, told by the content; UEFI where it is "
    "made for it). It is never written to, and must have systemd 256 or later",
)
BACKEND = Option("--backend", "NAME", "what runs the machine: qemu (the default), remote (with --host), fake")
NETWORK = Option(
    "--vm-network",
    "KIND",
    "what the guest reaches: user (all that this host does, the host's own loopback included; the default), "
    "restricted (nothing but what the run connects to it), none (no interface)",
)
MEMORY = Option("--vm-memory", "SIZE", "the machine's RAM: MiB, or 2G or 512M (default 2048)")
CPUS = Option("--vm-cpus", "N", "the machine's processors (default 2)")
BOOT_TIMEOUT = Option(
    "--boot-timeout",
    "SECONDS",
    "how long a boot may take on a host with KVM; where guests are emulated it is multiplied by how much slower "
    "they run (default 120)",
)
QEMU = Option("--qemu", "PROGRAM", "QEMU's program, by name or path (default qemu-system-x86_64)")
EVIDENCE = Option(
    "--evidence", "WHEN", "keep what tells of a test's machine: on, off, or retain-on-failure (the default)"
)
EVIDENCE_DIR = Option("--evidence-dir", "FOLDER", "where evidence is kept, a folder per test (default test-results)")

RERUN_FAILED = Option(
    "--rerun-failed",
    "",
    "run a test that failed once more, on a fresh machine. If it passes then, it is flaky, which is as red. (What "
    "failed for the laboratory's sake is always tried once more)",
    switch=True,
)
COLD = Option(
    "--cold",
    "",
    "boot every machine, and save no boot. (Without it, the first boot of an image in a machine of this shape is "
    "saved when it was good, and other machines are started from that in a second)",
    switch=True,
)
KEEP_VM = Option(
    "--keep-vm",
    "",
    "keep the machine after the run, and use the one that an earlier run has kept, if it is of the same image (by its "
    "digest) and shape. It stays as the tests leave it: no clean one after failures or where a suite begins. "
    "`pytest-bootc vm` shows, enters and ends it",
    switch=True,
)
KEEP_VM_IDLE = Option(
    "--keep-vm-idle",
    "TIME",
    "how long a machine is kept that nobody uses: seconds, or 30m or 2h (default 30m)",
)
EXEMPTIONS = Option(
    "--exemptions",
    "FILE",
    "known trouble that does not count: TOML, with owner, tracker and day of expiry for each. Repeat it for several",
    many=True,
)
FEATURES = Option(
    "--features",
    "WHICH",
    "which .feature files are tests: on (all), off (none), auto (the default: those named on the command line, and "
    "those for whom the nearest steps/ or environment.py above them is one of behave's)",
)
USERDATA = Option(
    "--userdata", "NAME=VALUE", "what features find in context.config.userdata; repeat it for several", many=True
)
CHECK_STEPS = Option(
    "--check-steps",
    "",
    "run no test; say which steps of the collected features have no definition (then the exit status is 1), which have "
    "several, and which definitions no step uses",
    switch=True,
)

OPTIONS = (
    IMAGE, SUITE, HOST, DISK, BACKEND, NETWORK, MEMORY, CPUS, BOOT_TIMEOUT, QEMU, EVIDENCE, EVIDENCE_DIR,
    RERUN_FAILED, EXEMPTIONS, COLD, KEEP_VM, KEEP_VM_IDLE, FEATURES, USERDATA, CHECK_STEPS,
)  # fmt: skip


class Setting(NamedTuple):
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


def add_options(parser: pytest.Parser) -> None:
    """Declare every option with its ini key."""
    group = parser.getgroup("bootc", "boot bootc images in virtual machines and judge them (each option has an ini "
                             "key bootc_... and an environment variable BOOTC_...)")  # fmt: skip
    for option in OPTIONS:
        help_ = f"{option.help}. {option.variable}"
        if option.switch:
            group.addoption(option.flag, action="store_const", const="yes", dest=option.dest, default=None, help=help_)
        else:
            action = "append" if option.many else "store"
            group.addoption(
                option.flag, action=action, dest=option.dest, metavar=option.metavar, default=None, help=help_
            )
        kind: Literal["args", "string"] = "args" if option.many else "string"
        parser.addini(option.dest, f"like {option.flag}", type=kind, default=None)
    # Made of x.feature:LINE, for the workers of xdist too; nobody types it.
    group.addoption("--feature-line", action="append", dest="bootc_feature_lines", default=[], help=argparse.SUPPRESS)


def configure(config: pytest.Config) -> None:
    """Declare the markers.

    :raises pytest.UsageError: what holds for every run, also for one that judges nothing, cannot be read.
    """
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    feature_mode(config)
    userdata(config)
    if checks_steps(config) and config.getoption("numprocesses", None):
        raise pytest.UsageError(f"{CHECK_STEPS.flag} and -n do not go together\nWhat to do: leave -n out")


def feature_mode(config: pytest.Config) -> str:
    """Which feature files are collected: ``on``, ``off`` or ``auto``. Raises as :func:`configure` does."""
    setting = lookup(config, FEATURES)
    mode = "auto" if setting is None else setting.value
    if setting is not None and mode not in ("on", "off", "auto"):
        raise pytest.UsageError(f"{setting.origin} {mode}: there is no such word\nWhat to do: write on, off or auto")
    return mode


def checks_steps(config: pytest.Config) -> bool:
    """Whether the run is about definitions of steps only."""
    setting = lookup(config, CHECK_STEPS)
    return setting is not None and setting.value.lower() not in ("no", "false", "off", "0")


def userdata(config: pytest.Config) -> dict[str, str]:
    """The words for features, by name. Raises as :func:`configure` does."""
    setting = lookup(config, USERDATA)
    words = () if setting is None else setting.values
    for word in words:
        if not word.partition("=")[0].strip():
            raise pytest.UsageError(f"{USERDATA.flag} {word}: it has no name\nWhat to do: write NAME=VALUE")
    # As for behave's own option, a name alone is true.
    return {
        name.strip(): value.strip() if equals else "true" for name, equals, value in (w.partition("=") for w in words)
    }


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


def is_distributed(config: pytest.Config) -> bool:
    """Whether pytest-xdist has several processes run the tests, and this is their controller or one of them."""
    return config.getoption("dist", "no") != "no" or hasattr(config, "workerinput")


def is_asked_for(config: pytest.Config) -> bool:
    """Whether this run judges anything. A suite alone counts when it was typed: then the subject is missing."""
    suite = lookup(config, SUITE)
    return any(lookup(config, option) for option in (IMAGE, HOST, DISK)) or bool(suite and suite.on_command_line)
