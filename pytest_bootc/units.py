"""systemd's units and jobs, as the guest tells of them.

Sources: systemctl(1), org.freedesktop.systemd1(5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_bootc.errors import GuestError
from pytest_bootc.shell import user_command

_PROPERTIES = (
    "Id",
    "Names",
    "Description",
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "Type",
    "UnitFileState",
    "ConditionResult",
    "ConditionTimestampMonotonic",
    "AssertResult",
    "AssertTimestampMonotonic",
    "InactiveExitTimestampMonotonic",
    "ExecMainStatus",
    "Job",
)
_SHOW = f"systemctl show --no-pager --property={','.join(_PROPERTIES)}"

#: What begins every request for a list; names that are longer than the terminal are in full only when told.
LIST = "systemctl --no-pager --no-legend --plain --full"
_IN_STATE = f"""
set -f
listed=$({LIST} --all --state="$1" list-units) || exit
names=$(printf '%s\\n' "$listed" | while read -r name rest; do printf '%s\\n' "$name"; done)
[ -z "$names" ] || exec {_SHOW} -- $names
"""


class UnitError(GuestError, AssertionError):
    """A unit did not come to the state that was waited for, and will not."""


@dataclass(frozen=True)
class Unit:
    """One unit. Words are systemd's own; what does not apply to the unit's type is empty or ``None``.

    ``condition_result`` and ``assert_result`` are ``None`` where nothing was checked yet; ``started`` says whether the
    unit left the state *inactive* since the guest booted.
    """

    name: str
    load_state: str
    active_state: str
    sub_state: str
    result: str
    condition_result: bool | None
    assert_result: bool | None
    unit_file_state: str
    job: int | None
    type: str
    exec_main_status: int | None
    started: bool
    names: tuple[str, ...] = ()
    description: str = ""

    @property
    def active(self) -> bool:
        """Whether it is up."""
        return self.active_state == "active"

    @property
    def failed(self) -> bool:
        """Whether it ended with an error."""
        return self.active_state == "failed"

    @property
    def judged(self) -> bool:
        """Whether its state says anything about the image: its conditions held, and it started.

        A unit that was skipped by a condition looks like one that has done its work.
        """
        return self.started and self.condition_result is not False

    @property
    def reason(self) -> str:
        """Why it is not active, as a clause."""
        if self.load_state == "not-found":
            return "there is no such unit"
        if self.failed:
            return f"it has failed (result {self.result})"
        if self.condition_result is False:
            return "it was skipped by a condition"
        if self.assert_result is False:
            return "one of its assertions does not hold"
        if self.started:
            return f"it ran and has ended (result {self.result})"
        # systemd forgets units that nothing refers to, and with them why they were skipped.
        return "it was not started, or was skipped, and systemd has no job left"

    def __str__(self) -> str:
        return f"{self.name} ({self.active_state}/{self.sub_state}, result {self.result or 'none'})"


@dataclass(frozen=True)
class Job:
    """Something that systemd was asked to do with a unit, and has not done yet."""

    id: int
    unit: str
    type: str
    state: str


def show_command(names: Sequence[str]) -> Sequence[str]:
    """The command that tells of these units, all of them in one go."""
    return (*_SHOW.split(), "--", *names)


def in_state_command(state: str) -> Sequence[str]:
    """The command that tells of every loaded unit in this state (``failed``)."""
    return ("sh", "-c", _IN_STATE, "sh", state)


def list_jobs_command() -> Sequence[str]:
    """The command that lists the jobs that systemd has queued."""
    return (*LIST.split(), "list-jobs")


def status_command(name: str) -> Sequence[str]:
    """The command that tells people of a unit, with the end of its journal."""
    return ("systemctl", "status", "--no-pager", "--full", "--lines=20", "--", name)


def as_user(user: str | None, command: Sequence[str]) -> Sequence[str]:
    """A systemctl command for the service manager of a user who is logged in, or the system's for ``None``."""
    if user is None:
        return command
    program, *arguments = command
    return user_command(user, (program, "--user", *arguments))


def parse_units(text: str) -> list[Unit]:
    """The units of ``systemctl show``: blocks of ``Name=value`` lines, with an empty line between them.

    :raises GuestError: the text is something else.
    """
    return [_unit(_properties(block)) for block in text.strip().split("\n\n") if block.strip()]


def parse_jobs(text: str) -> list[Job]:
    """The jobs of ``systemctl list-jobs``: number, unit, type and state in columns."""
    rows = (line.split() for line in text.splitlines())
    return [Job(int(row[0]), *row[1:]) for row in rows if len(row) == 4 and row[0].isdigit()]


def _properties(block: str) -> Mapping[str, str]:
    # Older versions print Result and Type twice for some units; the last is the specific one.
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _unit(shown: Mapping[str, str]) -> Unit:
    try:
        return Unit(
            name=shown["Id"],
            load_state=shown["LoadState"],
            active_state=shown["ActiveState"],
            sub_state=shown["SubState"],
            result=shown.get("Result", ""),
            condition_result=_checked(shown, "Condition"),
            assert_result=_checked(shown, "Assert"),
            unit_file_state=shown.get("UnitFileState", ""),
            job=int(shown.get("Job", "") or 0) or None,
            type=shown.get("Type", ""),
            exec_main_status=int(shown["ExecMainStatus"]) if "ExecMainStatus" in shown else None,
            started=_time(shown, "InactiveExit") > 0,
            names=tuple(shown.get("Names", "").split()),
            description=shown.get("Description", ""),
        )
    except (KeyError, ValueError) as error:
        raise GuestError(
            "systemctl show printed something that cannot be read",
            details=f"{error!r} in\n" + "\n".join(f"{name}={value}" for name, value in shown.items()),
        ) from error


def _checked(shown: Mapping[str, str], what: str) -> bool | None:
    # The result of a check that was never made is printed as "no".
    return shown.get(f"{what}Result") == "yes" if _time(shown, what) else None


def _time(shown: Mapping[str, str], event: str) -> int:
    """Microseconds on the guest's monotonic clock; 0 for never."""
    return int(shown.get(f"{event}TimestampMonotonic", "") or 0)
