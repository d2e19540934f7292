"""The running guest: its units, journal, deployments, packages and files, over whatever can run a command in it.

The guest is asked through its own programs, as few and as seldom as possible, in POSIX sh: an image need not have
Python, and every command costs an emulated one a tenth of a second and more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NoReturn

from pytest_bootc.capabilities import FileCapabilities
from pytest_bootc.deadline import Deadline
from pytest_bootc.deployment import PROVIDERS, Deployment
from pytest_bootc.errors import GuestError
from pytest_bootc.journal import (
    STARTED_MATCHES,
    Coredump,
    JournalEntry,
    JournalQuery,
    coredump_query,
    parse_coredumps,
    parse_journal,
    skipped_unit,
)
from pytest_bootc.shell import (
    Command,
    CommandResult,
    CommandRunner,
    ShellVerbs,
    shell_line,
    time_limit,
    user_command,
    wait_for,
)
from pytest_bootc.system import (
    GuestFacts,
    Mount,
    Package,
    capabilities_command,
    facts_command,
    hash_command,
    listening_command,
    package_command,
    parse_capabilities,
    parse_facts,
    parse_hashes,
    parse_listening,
    parse_mounts,
    parse_os_release,
    parse_package,
    sections,
)
from pytest_bootc.units import (
    Job,
    Unit,
    UnitError,
    as_user,
    in_state_command,
    list_jobs_command,
    parse_jobs,
    parse_units,
    show_command,
    status_command,
)

_FAILED_LOOKS = 2
# More units than any image starts in a boot.
_STARTS = 5000


class Guest(ShellVerbs):
    """What can be asked of a running guest. Each method that asks one question is one command in the guest.

    All of them raise :class:`GuestError` where the guest's answer cannot be understood or its program is missing, and
    what the runner raises where there is no answer at all (:meth:`~pytest_bootc.shell.ShellVerbs.execute`).
    """

    def __init__(self, runner: CommandRunner, *, deadline: Deadline | None = None) -> None:
        self._runner = runner
        self._deadline = deadline

    def within(self, deadline: Deadline) -> Guest:
        """The same guest, with a deadline that all its answers together must keep."""
        return Guest(self._runner, deadline=deadline)

    def as_user(self, name: str) -> Guest:
        """The same guest, asked by a user of it: in their home folder, with the bus of their session."""
        return Guest(_UserRunner(self._runner, name), deadline=self._deadline)

    def execute(
        self,
        command: Command,
        *,
        timeout: float | None = None,
        deadline: Deadline | None = None,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> CommandResult:
        """Run a command in the guest, as :meth:`ShellVerbs.execute` says."""
        return self._runner.execute(command, deadline=self._limit(timeout, deadline), stdin=stdin, env=env)

    # Units and jobs

    def unit(self, name: str, *, user: str | None = None) -> Unit:
        """One unit, of the system or of a user's own service manager. A unit that is nowhere is ``not-found``."""
        return self.units(name, user=user)[0]

    def units(self, *names: str, user: str | None = None) -> list[Unit]:
        """Several units, in the order in which they are named."""
        if not names:
            return []
        text = self._ask(as_user(user, show_command(names)), "systemctl cannot be asked for units")
        units = parse_units(text)
        if len(units) != len(names):
            raise GuestError(f"systemctl told of {len(units)} units instead of {len(names)}", details=text)
        return units

    def failed_units(self) -> list[Unit]:
        """The units that have failed."""
        return parse_units(self._ask(in_state_command("failed"), "systemctl cannot list the failed units"))

    def skipped_units(self) -> Mapping[str, str]:
        """The units that a condition has skipped since the boot, by name, and what systemd said of each.

        They look like units that have done their work, and say nothing about the image: they are *not judged*.
        """
        entries = parse_journal(self._journal(JournalQuery(limit=_STARTS, matches=STARTED_MATCHES)))
        return {name: entry.message for entry in entries if (name := skipped_unit(entry)) is not None}

    def stuck_jobs(self) -> list[Job]:
        """What systemd was asked to do and has not done yet. Once the guest has booted, there should be nothing."""
        return parse_jobs(self._ask(list_jobs_command(), "systemctl cannot list the jobs"))

    def system_state(self) -> str:
        """``running``, ``degraded`` (a unit failed), ``starting``: the word of ``systemctl is-system-running``."""
        # Its exit status is that of the answer "is it running?", so it cannot tell of trouble.
        result = self.execute(["systemctl", "is-system-running"])
        return result.stdout.strip() or self._refuse(result, "systemctl does not tell the state of the system")

    def is_system_running(self) -> bool:
        """Whether the boot is done and no unit has failed."""
        return self.system_state() == "running"

    def wait_for_unit(
        self, name: str, *, timeout: float | None = None, deadline: Deadline | None = None, user: str | None = None
    ) -> Unit:
        """Wait until a unit is active.

        Gives up at once where that will not happen: the unit has failed, or it is inactive and systemd has no job left.

        :raises UnitError: it will not become active; its status is in the details.
        :raises WaitTimeoutError: it was not active before the deadline.
        """
        limit = self._limit(timeout, deadline)
        guest = self.within(limit)
        idle = 0
        seen: list[Unit] = []  # the last look

        def active() -> Unit | None:
            nonlocal idle
            unit = guest.unit(name, user=user)
            seen[:] = [unit]
            if unit.active:
                return unit
            resting = unit.active_state == "inactive" and unit.job is None
            # A job may be queued between the two questions.
            idle = idle + 1 if resting and not guest._jobs(user) else 0
            if unit.failed or idle == _FAILED_LOOKS:
                raise guest._unit_error(unit, user)
            return None

        return wait_for(
            active, limit, what=f"{name} to become active", last=lambda: "".join(f"It was {unit}." for unit in seen)
        )

    # Waiting for other things

    def wait_for_open_port(self, port: int, *, timeout: float | None = None, deadline: Deadline | None = None) -> None:
        """Wait until something in the guest listens on a TCP port, on whatever address.

        :raises WaitTimeoutError: nothing did before the deadline; the ports that are open are in the details.
        """
        limit = self._limit(timeout, deadline)
        guest = self.within(limit)
        seen: set[int] = set()

        def listening() -> bool:
            ports = parse_listening(guest._ask(listening_command(), "the guest does not tell its open ports"))
            seen.clear()
            seen.update(ports)
            return port in seen

        wait_for(
            listening, limit, what=f"TCP port {port} to open", last=lambda: f"Open ports: {sorted(seen) or 'none'}"
        )

    def wait_for_file(self, path: str, *, timeout: float | None = None, deadline: Deadline | None = None) -> None:
        """Wait until a path exists, of whatever kind.

        :raises WaitTimeoutError: it did not before the deadline.
        """
        limit = self._limit(timeout, deadline)
        guest = self.within(limit)
        wait_for(lambda: guest.execute(["test", "-e", path]).status == 0, limit, what=f"{path} to appear")

    # The journal

    def journal(
        self,
        *,
        since_cursor: str | None = None,
        unit: str | None = None,
        priority: int | str | None = None,
        boot: bool = True,
        limit: int = 1000,
    ) -> list[JournalEntry]:
        """The newest ``limit`` entries, oldest first, at most 16 MiB of them.

        ``priority`` is a number or a word (``err``) and means that and worse; ``boot`` leaves out earlier boots.
        """
        query = JournalQuery(since_cursor, unit, priority, boot, limit)
        return parse_journal(self._journal(query))

    def journal_cursor(self) -> str | None:
        """The name of the newest entry, for ``since_cursor``; ``None`` where the journal is empty."""
        entries = self.journal(limit=1)
        return entries[0].cursor if entries else None

    def coredumps(self, *, since_cursor: str | None = None) -> list[Coredump]:
        """The processes that died with a core since the boot, as far as systemd-coredump noticed."""
        return parse_coredumps(self._journal(coredump_query(since_cursor)))

    # The system

    def facts(self) -> GuestFacts:
        """What a report says about the guest, in one command."""
        return parse_facts(self._ask(facts_command(), "the guest does not tell what it is"))

    def os_release(self) -> Mapping[str, str]:
        """The assignments of os-release(5): ``ID``, ``VERSION_ID``, ``VARIANT_ID`` ..."""
        return parse_os_release(self._ask(["cat", "/etc/os-release"], "the guest has no /etc/os-release"))

    def kernel_release(self) -> str:
        """The kernel's version, as ``uname -r`` has it."""
        return self._ask(["uname", "-r"], "the guest does not tell its kernel").strip()

    def boot_id(self) -> str:
        """The kernel's name for this boot; another one means that the guest was rebooted."""
        return self._ask(["cat", "/proc/sys/kernel/random/boot_id"], "the guest does not tell its boot id").strip()

    def uptime(self) -> float:
        """Seconds since the guest's kernel started."""
        return float(self._ask(["cat", "/proc/uptime"], "the guest does not tell its uptime").split()[0])

    def has_program(self, name: str) -> bool:
        """Whether the shell finds a program of that name."""
        return self.execute(["sh", "-c", 'command -v "$1" >/dev/null', "sh", name]).status == 0

    def installed(self, name: str) -> Package | None:
        """The package of that name, of rpm, dpkg or flatpak, whichever the guest has; ``None`` where none has it."""
        return parse_package(self._ask(package_command(name), "the guest does not tell its packages"), name)

    def mounts(self) -> list[Mount]:
        """What is mounted, in the order in which it was; of two mounts on one target the later hides the other."""
        return parse_mounts(self._ask(["cat", "/proc/self/mountinfo"], "the guest does not tell its mounts"))

    def deployment(self) -> Deployment | None:
        """What is deployed, by bootc or else ostree; ``None`` where the root is no deployment.

        :raises GuestError: bootc or ostree is there and failed; what it said is in the details.
        """
        script = "\n".join(
            f"printf '\\036{name}\\n'; {{ {script}; }}; printf '\\036{name}.status\\n%s\\n' $?"
            for name, script in ((provider.name, provider.script) for provider in PROVIDERS)
        )
        result = self.execute(["sh", "-c", script])
        told = sections(result.stdout)
        for provider in PROVIDERS:
            if told.get(f"{provider.name}.status") != "0":
                self._refuse(result, f"{provider.name} cannot tell what is deployed")
            document = told.get(provider.name, "")
            deployment = provider.parse(document) if document else None
            if deployment is not None:
                return deployment
        return None

    # Files

    def capabilities(self, path: str) -> FileCapabilities:
        """The capabilities of a program file.

        :raises GuestError: there is no such file, or the guest has neither getcap nor getfattr.
        """
        text = self._ask(capabilities_command(path), f"the capabilities of {path} cannot be read")
        return parse_capabilities(text, path)

    def hash_files(self, paths: Iterable[str]) -> Mapping[str, str]:
        """SHA-256 (64 hexadecimal digits) by path, of those files that can be read."""
        names = list(paths)
        if not names:
            return {}
        stdin = b"".join(name.encode(errors="surrogateescape") + b"\0" for name in names)
        result = self.execute(hash_command(), stdin=stdin)
        # xargs: 123 says that some of them could not be read.
        if result.status not in (0, 123):
            self._refuse(result, "sha256sum cannot be run")
        return parse_hashes(result.stdout)

    def _limit(self, timeout: float | None, deadline: Deadline | None) -> Deadline:
        limit = time_limit(timeout, deadline) if (timeout, deadline) != (None, None) else None
        ends = [end for end in (limit, self._deadline) if end is not None]
        return min(ends, key=lambda end: end.at) if ends else time_limit(None, None)

    def _ask(self, command: Command, failure: str) -> str:
        result = self.execute(command)
        return result.stdout if result.status == 0 else self._refuse(result, failure)

    def _refuse(self, result: CommandResult, failure: str) -> NoReturn:
        raise GuestError(failure, details=f"{result.transcript()}\nIt {result.outcome}.")

    def _journal(self, query: JournalQuery) -> bytes:
        result = self.execute(query.command())
        if result.status != 0 or (result.stderr and not result.stdout_bytes):
            self._refuse(result, "journalctl cannot be asked")
        return result.stdout_bytes

    def _jobs(self, user: str | None) -> list[Job]:
        return parse_jobs(self._ask(as_user(user, list_jobs_command()), "systemctl cannot list the jobs"))

    def _unit_error(self, unit: Unit, user: str | None) -> UnitError:
        status = self.execute(as_user(user, status_command(unit.name)))
        return UnitError(f"{unit.name} will not become active: {unit.reason}", details=status.stdout or status.stderr)


class _UserRunner:
    """Runs commands as a user of the guest."""

    def __init__(self, runner: CommandRunner, name: str) -> None:
        self._runner = runner
        self._name = name

    def execute(
        self,
        command: Command,
        *,
        timeout: float | None = None,
        deadline: Deadline | None = None,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> CommandResult:
        """Run a command, as :meth:`ShellVerbs.execute` says; its result names it without what is around it."""
        line = shell_line(command, env)
        words = user_command(self._name, ("sh", "-c", line))
        result = self._runner.execute(words, timeout=timeout, deadline=deadline, stdin=stdin)
        return replace(result, command=f"{line}  # as {self._name}")
