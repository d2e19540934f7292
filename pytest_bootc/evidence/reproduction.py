"""The command that runs one test again, to be pasted into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from pytest_bootc.image import ImageReference
from pytest_bootc.model import MachineSpec, RunConfig

_DEFAULT = RunConfig()
_DEFAULT_SPEC = MachineSpec()


def reproduce_line(
    config: RunConfig, reference: ImageReference | None, nodeid: str, environment: Mapping[str, str] | None = None
) -> str:
    """The command line: the subject, the options that are not the default, and the test.

    ``reference`` names the image, pinned to the digest that was judged; without one it is the run's host or disk.
    ``nodeid`` is as pytest takes it in the folder where the command is pasted: for a test of a shipped suite its id
    alone, which begins at the suite. ``environment`` goes in front.
    """
    words = ["pytest", *_subject(config, reference), *_machine(config), nodeid]
    assignments = [f"{name}={shlex.quote(value)}" for name, value in (environment or {}).items()]
    return " ".join((*assignments, shlex.join(words)))


def _subject(config: RunConfig, reference: ImageReference | None) -> list[str]:
    if reference is not None:
        return ["--image", str(reference)]
    if config.disk is not None:
        return ["--disk", str(config.disk.path)]
    return [] if config.host is None else ["--host", config.host]


def _machine(config: RunConfig) -> list[str]:
    spec = config.spec
    words = []
    if config.host is None and config.backend != _DEFAULT.backend:
        words += ["--backend", config.backend]
    if spec.network is not _DEFAULT_SPEC.network:
        words += ["--vm-network", spec.network.value]
    if spec.memory_mib != _DEFAULT_SPEC.memory_mib:
        words += ["--vm-memory", str(spec.memory_mib)]
    if spec.cpus != _DEFAULT_SPEC.cpus:
        words += ["--vm-cpus", str(spec.cpus)]
    if spec.qemu != _DEFAULT_SPEC.qemu:
        words += ["--qemu", spec.qemu]
    if config.boot_timeout != _DEFAULT.boot_timeout:
        words += ["--boot-timeout", f"{config.boot_timeout:g}"]
    return words
