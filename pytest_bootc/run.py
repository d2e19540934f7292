"""A run that judges something: its subjects, their machines, the states of its tests, and how it ends.

There is one per process. Under xdist the controller resolves the images and hands their digests to the workers, so
that no tag can move during a run; the workers boot machines and send back what is to be said about them.
"""

from __future__ import annotations

import datetime
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import pytest

from pytest_bootc.cache import Cache, default_home
from pytest_bootc.configuration import usage_error
from pytest_bootc.deadline import Deadline
from pytest_bootc.disk.live import Workshop, build_live_disk, find_live_disk
from pytest_bootc.errors import Blame, BootcTestError, ConfigError
from pytest_bootc.evidence import examine_failed_boot
from pytest_bootc.exemptions import load_exemptions
from pytest_bootc.guarding import Guard
from pytest_bootc.image import Digest, ImageReference
from pytest_bootc.machine.base import Machine, load_backend
from pytest_bootc.machine.pool import VM, Pool
from pytest_bootc.machine.terms import Terms
from pytest_bootc.model import Evidence, GoldenDisk, MachineFacts, MachineSpec, ResolvedImage, RunConfig, Scope
from pytest_bootc.options import BOOT_SUITE
from pytest_bootc.progress import Progress, Silent
from pytest_bootc.reports.progress import Terminal, TerminalProgress
from pytest_bootc.source import source_for
from pytest_bootc.verdict import ExitStatus, SubjectVerdict, Tally

#: Where pytest's configuration holds the run.
RUN = pytest.StashKey["Run"]()

_RESOLVE_SECONDS = 120.0
_BUILD_SECONDS = 3600.0
_EARLY_SECONDS = 5.0
_WITHOUT_DISK = ("fake", "remote")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_DIGESTS = "bootc_digests"
_FACTS = "bootc_facts"


@dataclass(frozen=True)
class Subject:
    """What is judged: an image, a disk file or a host. ``name`` is its test id, and unique in a run."""

    name: str
    text: str
    reference: ImageReference | None = None
    digest: Digest | None = None

    def __repr__(self) -> str:
        # pytest and Allure show a parameter's repr; Allure also makes a test's history of it.
        return self.name


class Run:
    """Everything that one process knows about the run.

    :raises ConfigError: an exemption cannot be read, or has expired.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.tally = Tally()
        self.subjects = _subjects(config)
        self.facts: dict[str, MachineFacts] = {}
        self.progress: Progress = Silent()
        self.guard = Guard(load_exemptions(config.exemptions, datetime.date.today()))
        terms = Terms(
            boot_seconds=config.boot_timeout,
            missing=pytest.skip.Exception,
            listener=self.guard.hear,
            judge=self._judge_boot,
            progress=lambda: self.progress,
            keep=config.keep_vm,
        )
        self.pool = Pool(lambda: load_backend(config, default_home()), terms)
        self.disk_failures: dict[str, BootcTestError] = {}
        self._images: dict[str, ResolvedImage] = {}

    @property
    def over_images(self) -> bool:
        """Whether tests are parametrised by the subjects."""
        return bool(self.config.images)

    @property
    def suites_asked_for(self) -> tuple[str, ...]:
        """The suites that somebody has named; the one that all others stand on comes along."""
        return tuple(suite for suite in self.config.suites if suite != BOOT_SUITE)

    def resolve(self) -> None:
        """Find out which images the references mean. Ends the run where one means none.

        :raises pytest.UsageError: a reference is bad, or names nothing for this host (exit status 4).
        """
        try:
            self.subjects = tuple(self._pinned(subject) for subject in self.subjects)
        except BootcTestError as error:
            if error.blame is Blame.USAGE:
                raise usage_error(error) from error
            status = ExitStatus.LAB_TROUBLE if error.blame is Blame.LAB else ExitStatus.BAD_IMAGE
            pytest.exit(str(error), returncode=status)

    def pin(self, digests: Mapping[str, str]) -> None:
        """Take over what the controller has resolved."""
        self.subjects = tuple(
            replace(subject, digest=Digest.parse(digests[subject.name])) if subject.name in digests else subject
            for subject in self.subjects
        )

    def digests(self) -> dict[str, str]:
        """What the references mean, for the workers."""
        return {subject.name: str(subject.digest) for subject in self.subjects if subject.digest is not None}

    def image(self, subject: Subject) -> ResolvedImage | None:
        """The subject's image, of the digest that was pinned; ``None`` where none is booted from a reference."""
        if subject.reference is None or subject.digest is None:
            return None
        if subject.name not in self._images:
            pinned = self._resolved(subject.reference.pinned(subject.digest))
            self._images[subject.name] = replace(pinned, reference=subject.reference)
        return self._images[subject.name]

    def subject_of(self, image: ResolvedImage | None) -> Subject:
        """The subject whose image it is.

        :raises ConfigError: an overridden fixture ``image`` returned one that the run was not asked to judge.
        """
        if image is None and not self.over_images:
            return self.subjects[0]
        for subject in self.subjects:
            if image is not None and subject.reference == image.reference:
                return subject
        raise ConfigError(f"the fixture `image` gave {image and image.reference}, which this run does not judge")

    def given_up(self, subject: Subject) -> BootcTestError | None:
        """What an earlier test has tried in vain, and none tries again; told in short.

        The subject's disk could not be made, or its machine not booted.
        """
        failure = self.disk_failures.get(subject.name)
        if failure is not None:
            return type(failure)(f"the disk could not be made: {failure.brief} (see the first error)")
        vm = self.pool.find(subject.name)
        return None if vm is None or vm.failure is None else vm.failure.again()

    def start_afresh(self, subject: Subject) -> None:
        """Have what the subject's tests stand on made anew: the machine, and the disk where that had failed."""
        self.disk_failures.pop(subject.name, None)
        vm = self.pool.find(subject.name)
        if vm is not None:
            vm.condemn()

    def facts_for_controller(self) -> dict[str, dict[str, Any]]:
        """The facts in words that cross from a worker to the controller."""
        return {name: {**asdict(facts), "scope": facts.scope.value} for name, facts in self.facts.items()}

    def take_facts(self, said: Mapping[str, Mapping[str, Any]]) -> None:
        """What a worker said in :meth:`facts_for_controller`."""
        for name, facts in said.items():
            known = {**facts, "scope": Scope(facts["scope"]), "notes": tuple(facts["notes"])}
            self.facts[name] = MachineFacts(**known)

    def verdicts(self) -> list[SubjectVerdict]:
        """What is known about each subject by now."""
        return [
            SubjectVerdict(
                name=subject.name,
                text=subject.text,
                digest="" if subject.digest is None else str(subject.digest),
                facts=self.facts.get(subject.name),
                outcomes=tuple(self.tally.of(subject.name)),
                suites=self.suites_asked_for,
            )
            for subject in self.subjects
        ]

    def _judge_boot(self, subject: str, machine: Machine) -> str:
        text = next(known.text for known in self.subjects if known.name == subject)
        return self.guard.judge_boot(machine, text)

    def _pinned(self, subject: Subject) -> Subject:
        if subject.reference is None:
            return subject
        image = self._resolved(subject.reference)
        self._images[subject.name] = image
        return replace(subject, digest=image.digest)

    def _resolved(self, reference: ImageReference) -> ResolvedImage:
        return source_for(reference).resolve(reference, Deadline.after(_RESOLVE_SECONDS), host_architecture())


def start(run: Run, config: pytest.Config) -> None:
    """Find out what is judged; a worker is told by the controller. Raises as :meth:`Run.resolve` does."""
    if is_worker(config):
        run.pin(getattr(config, "workerinput", {}).get(_DIGESTS, {}))
    else:
        run.progress = _terminal_progress(config)
        run.resolve()
    distributes = config.getoption("dist", "no") != "no" and not is_worker(config)
    if not distributes and not config.option.collectonly:
        _begin_early(run)


def _begin_early(run: Run) -> None:
    """Start the first machine while pytest collects, where that takes a second only: for a run of a single image.

    Where it comes to nothing, the first test that needs a machine starts one, and says why if it cannot.
    """
    if len(run.subjects) != 1 or run.config.backend != "qemu" or run.config.cold:
        return
    try:
        image = run.image(run.subjects[0])
        if image is None:
            return
        disk = find_live_disk(image, _workshop(run, run.config.spec, Deadline.after(_EARLY_SECONDS)))
        if disk is not None:
            run.pool.vm(run.subjects[0].name).expect(run.config.spec, disk)
    except BootcTestError:
        return


def image_of(run: Run, subject: object) -> ResolvedImage | None:
    """The image of a test's parameter.

    :raises ConfigError: the test has none, because it does not say that it uses an image or a machine.
    """
    if isinstance(subject, Subject):
        return run.image(subject)
    if run.over_images:
        raise ConfigError(
            "the test came to a machine without saying so: there is no telling which image it is for",
            resolution="name image, vm, ssh or guest among the test's arguments, or in usefixtures",
        )
    return None


def golden_disk(run: Run, image: ResolvedImage | None, spec: MachineSpec) -> GoldenDisk | None:
    """What the machine boots. Building it may take minutes, once per image."""
    if run.config.disk is not None:
        return run.config.disk
    if image is None or run.config.backend in _WITHOUT_DISK:
        return None
    try:
        workshop = _workshop(run, spec, Deadline.after(_BUILD_SECONDS))
        return build_live_disk(image, source_for(image.reference), workshop)
    except BootcTestError as error:
        run.disk_failures[run.subject_of(image).name] = error
        raise


def _workshop(run: Run, spec: MachineSpec, deadline: Deadline) -> Workshop:
    return Workshop(Cache(default_home()), deadline, run.progress, spec.var_gib)


@contextmanager
def machine(run: Run, image: ResolvedImage | None, spec: MachineSpec, disk: GoldenDisk | None) -> Iterator[VM]:
    """The handle on the machine that boots the image; the machine is there as long as the context lasts."""
    subject = run.subject_of(image)
    vm = run.pool.vm(subject.name)
    if run.config.evidence is not Evidence.OFF:
        vm.examiner = examine_failed_boot
    try:
        with run.progress.stage(f"booting {subject.name}"):
            vm.use(spec, disk)
        run.facts[subject.name] = vm.facts
        yield vm
    finally:
        name = "" if vm.running is None else vm.name
        if vm.close() and subject.name in run.facts:
            facts = run.facts[subject.name]
            run.facts[subject.name] = replace(facts, notes=(*facts.notes, *_kept_notes(run.config, name)))


def _kept_notes(config: RunConfig, name: str) -> tuple[str, ...]:
    minutes = config.keep_vm_idle / 60
    return (
        f"{name} is kept until nobody has used it for {minutes:g} min: `pytest-bootc vm ssh {name}`",
        "a machine that is kept tells what a test does; whether the image is good, tells a run without --keep-vm",
    )


def current(config: pytest.Config) -> Run:
    """The run.

    :raises ConfigError: this one judges nothing.
    """
    run = config.stash.get(RUN, None)
    if run is None:
        raise ConfigError(
            "this test needs a machine, and pytest was not told what to boot",
            resolution="add --image REF, --disk FILE or --host HOST",
        )
    return run


def host_architecture() -> str:
    """The host's architecture in the words of the OCI image-spec."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def send_to_worker(run: Run, workerinput: dict[str, Any]) -> None:
    """Give a worker what it must not find out by itself."""
    workerinput[_DIGESTS] = run.digests()


def send_to_controller(run: Run, config: pytest.Config) -> None:
    """Give the controller what only this worker knows."""
    config.workeroutput[_FACTS] = run.facts_for_controller()  # type: ignore[attr-defined]


def receive_in_controller(run: Run, node: Any) -> None:
    """Take what a worker gave; one that crashed gave nothing."""
    run.take_facts(getattr(node, "workeroutput", {}).get(_FACTS, {}))


def is_worker(config: pytest.Config) -> bool:
    """Whether this process runs tests for a controller."""
    return hasattr(config, "workerinput")


def _terminal_progress(config: pytest.Config) -> Progress:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.get_verbosity() < 0:
        return Silent()
    capture = config.pluginmanager.get_plugin("capturemanager")
    uncaptured = nullcontext if capture is None else capture.global_and_fixture_disabled
    return TerminalProgress(Terminal(reporter, live=reporter.isatty, uncaptured=uncaptured))


def _subjects(config: RunConfig) -> tuple[Subject, ...]:
    if config.host is not None:
        return (Subject(config.host, f"host {config.host}"),)
    if config.disk is not None:
        return (Subject(config.disk.path.name, f"disk {config.disk.path}"),)
    short = [reference.short for reference in config.images]
    return tuple(
        Subject(reference.short if short.count(reference.short) == 1 else str(reference), str(reference), reference)
        for reference in config.images
    )
