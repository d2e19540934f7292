"""Users and groups.

*The user* is who a machine is for: the one that ``--userdata user=NAME`` names, else the first with an id from 1000 to
60000.
"""

from __future__ import annotations

from typing import Any

from pytest_bootc.features.steps.asking import ask, guest_of, missed, needs_success, patience
from pytest_bootc.features.steps.library import given, then
from pytest_bootc.shell import short

_FIRST, _LAST = 1000, 60000
_NAME = "tester"
_LOOK = 'getent passwd "$1" || grep "^$1:" /etc/passwd'
_ALL = "getent passwd || cat /etc/passwd"
# Not every login has the folders of these programs in its PATH.
_MAKE = 'PATH=$PATH:/usr/sbin:/sbin; useradd --create-home --user-group "$1"'
_REMOVE = """
PATH=$PATH:/usr/sbin:/sbin
loginctl disable-linger "$1" 2>/dev/null
systemctl stop "user@$(id -u "$1").service" 2>/dev/null
userdel --force --remove "$1"
"""
# The service manager comes to the bus a little after there is one.
_SESSION = "busctl --user status org.freedesktop.systemd1"


def user_of(context: Any) -> str:
    """The name of the machine's user.

    :raises MissedError: there is none.
    """
    name = _known_user(context)
    if name is None:
        missed(f"nobody has a user id from {_FIRST} to {_LAST}: begin the scenario with: Given a user")
    return name


@given("a user")
def a_user(context: Any) -> None:
    """There is a user: the machine's own, or one that is made now and removed when the scenario ends."""
    if _known_user(context) is None:
        the_user(context, _NAME)


@given("the user {name}")
def the_user(context: Any, name: str) -> None:
    """There is a user of this name, whom *the user* means from now on; if need be, until the scenario ends."""
    if ask(context, ["sh", "-c", _LOOK, "sh", name]).status != 0:
        made = ask(context, ["sh", "-c", _MAKE, "sh", name])
        needs_success(made, f"the user {name} could not be made")
        guest = guest_of(context)
        context.add_cleanup(lambda: guest.succeed(["sh", "-c", _REMOVE, "sh", name]))
    context.library_user = name


@given("a user with a session")
def a_user_with_a_session(context: Any) -> None:
    """There is a user as for *a user*, whose service manager and session bus run: they linger until the scenario ends.

    Where they run anyway, nothing is changed.
    """
    a_user(context)
    name = user_of(context)
    if ask(context, _SESSION, user=name).status == 0:
        return
    needs_success(ask(context, ["loginctl", "enable-linger", name]), f"{name} cannot linger")
    guest = guest_of(context)
    context.add_cleanup(lambda: guest.execute(["loginctl", "disable-linger", name]))
    guest_of(context, name).wait_until_succeeds(_SESSION, timeout=patience(context, 60))


@then("the user {name} exists")
def user_exists(context: Any, name: str) -> None:
    """There is a user of this name."""
    result = ask(context, ["sh", "-c", _LOOK, "sh", name])
    if result.status != 0:
        missed(f"there is no user {name}", result)


@then("the user {name} does not exist")
def user_does_not_exist(context: Any, name: str) -> None:
    """There is no user of this name."""
    result = ask(context, ["sh", "-c", _LOOK, "sh", name])
    if result.status == 0:
        missed(f"there is a user {name}", result)


@then("the group {name} exists")
def group_exists(context: Any, name: str) -> None:
    """There is a group of this name."""
    result = ask(context, ["sh", "-c", 'getent group "$1" || grep "^$1:" /etc/group', "sh", name])
    if result.status != 0:
        missed(f"there is no group {name}", result)


@then("the user {name} is in the group {group}", member=True)
@then("the user {name} is not in the group {group}", member=False)
def is_in_group(context: Any, name: str, group: str, *, member: bool) -> None:
    """The user, who exists, is a member of a group, or is none."""
    result = needs_success(ask(context, ["id", "-nG", "--", name]), f"the groups of {name} cannot be told")
    if (group in result.stdout.split()) is not member:
        missed(f"{name} is {'not ' if member else ''}in the group {group}", result)


@then("the user {name} has the shell {path}")
def has_shell(context: Any, name: str, path: str) -> None:
    """The user's login shell is this program."""
    result = needs_success(ask(context, ["sh", "-c", _LOOK, "sh", name]), f"there is no user {name}")
    shell = result.stdout.strip().rpartition(":")[2]
    if shell != path:
        missed(f"the shell of {name} is {shell or 'not set'}, not {path}", result)


@then("the user {name} lingers")
def lingers(context: Any, name: str) -> None:
    """The user's services run without a login (loginctl(1))."""
    command = ["loginctl", "show-user", "--property=Linger", "--", name]
    result = needs_success(ask(context, command), f"logind does not know {name}")
    if result.stdout.strip() != "Linger=yes":
        missed(f"{name} does not linger: `{short(result.command)}` says {result.stdout.strip()!r}", result)


def _known_user(context: Any) -> str | None:
    known = context.library_user if "library_user" in context else context.config.userdata.get("user")
    if known:
        return str(known)
    result = needs_success(ask(context, _ALL), "the users cannot be listed")
    rows = [row.split(":") for row in result.stdout.splitlines() if row.count(":") >= 6]
    people = sorted((int(row[2]), row[0]) for row in rows if _FIRST <= int(row[2]) <= _LAST)
    if not people:
        return None
    context.library_user = people[0][1]
    return people[0][1]
