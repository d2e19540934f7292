"""Processes."""

from __future__ import annotations

from typing import Any

from pytest_bootc.features.steps.asking import ask, missed, needs_success
from pytest_bootc.features.steps.library import then
from pytest_bootc.shell import CommandResult

# Name, program and owner of each; kernel threads have no program.
_LIST = """
for folder in /proc/[0-9]*; do
  { read -r name < "$folder/comm"; } 2>/dev/null || continue
  echo "$name $(readlink "$folder/exe" 2>/dev/null || echo -) $(stat -c %U "$folder" 2>/dev/null)"
done
"""
# As much of a name as the kernel keeps (proc_pid_comm(5)).
_LENGTH = 15


@then("the process {name} runs")
def runs(context: Any, name: str) -> None:
    """A process has this name, or its program does."""
    result = _list(context)
    if not _owners(result, name):
        missed(f"no process {name} runs", result)


@then("the process {name} does not run")
def does_not_run(context: Any, name: str) -> None:
    """No process has this name, nor does any process's program."""
    result = _list(context)
    owners = _owners(result, name)
    if owners:
        missed(f"{len(owners)} processes {name} run, of {', '.join(sorted(set(owners)))}")


@then("the process {name} runs as {owner}")
def runs_as(context: Any, name: str, owner: str) -> None:
    """A process of this name belongs to a user."""
    result = _list(context)
    owners = _owners(result, name)
    if owner not in owners:
        told = f"runs as {', '.join(sorted(set(owners)))}" if owners else "does not run"
        missed(f"the process {name} {told}, not as {owner}", result)


def _list(context: Any) -> CommandResult:
    return needs_success(ask(context, ["sh", "-c", _LIST]), "the processes cannot be listed")


def _owners(result: CommandResult, name: str) -> list[str]:
    rows = [line.rsplit(" ", 2) for line in result.stdout.splitlines() if line.count(" ") >= 2]
    return [row[2] for row in rows if row[0] == name[:_LENGTH] or row[1].rpartition("/")[2] == name]
