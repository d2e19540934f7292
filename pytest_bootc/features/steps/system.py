"""The system: its name, mounts and kernel."""

from __future__ import annotations

import shlex
from typing import Any

from pytest_bootc.features.steps.asking import ask, expression, guest_of, missed, needs_success
from pytest_bootc.features.steps.library import then
from pytest_bootc.system import Mount


@then('os-release has {name} "{value}"')
def os_release_has(context: Any, name: str, value: str) -> None:
    """A field of os-release(5), such as *ID*, is this."""
    found = guest_of(context).os_release()
    if found.get(name) != value:
        missed(f"os-release has {name}={found.get(name)!r}, not {value!r}")


@then("os-release has {name} matching /{regex}/")
def os_release_matches(context: Any, name: str, regex: str) -> None:
    """A regular expression is found in a field of os-release(5) that is there."""
    found = guest_of(context).os_release().get(name)
    if found is None or not expression(regex).search(found):
        missed(f"os-release has {name}={found!r}, which does not match /{regex}/")


@then("{path} is mounted")
def is_mounted(context: Any, path: str) -> None:
    """Something is mounted at the very path."""
    if path not in {mount.target for mount in guest_of(context).mounts()}:
        missed(f"nothing is mounted at {path}", _findmnt(context))


@then("{path} is on a read-only file system", read_only=True)
@then("{path} is on a writable file system", read_only=False)
def is_read_only(context: Any, path: str, *, read_only: bool) -> None:
    """The mount that the path is on cannot, or can, be written."""
    mount = _mount_of(context, path)
    if mount.read_only is not read_only:
        missed(f"{path} is on {mount.target}, which is {'writable' if read_only else 'read-only'}", _told(mount))


@then("{path} is on a file system of type {kind}")
def is_of_type(context: Any, path: str, kind: str) -> None:
    """The mount that the path is on has this type, or one of several with ``|`` between them (``btrfs|xfs``)."""
    mount = _mount_of(context, path)
    if mount.type not in kind.split("|"):
        missed(f"{path} is on a file system of type {mount.type}, not {kind}", _told(mount))


@then("{path} is mounted with the option {option}")
def has_option(context: Any, path: str, option: str) -> None:
    """The mount that the path is on has this option, of its own or of its file system."""
    mount = _mount_of(context, path)
    options = {*mount.options, *mount.super_options}
    if option not in options and option not in {each.partition("=")[0] for each in options}:
        missed(f"{path} is mounted without the option {option}", _told(mount))


@then("the kernel module {name} is loaded")
def module_is_loaded(context: Any, name: str) -> None:
    """The kernel has loaded the module, or has it built in."""
    result = ask(context, f"test -d /sys/module/{shlex.quote(name.replace('-', '_'))}")
    if result.status != 0:
        missed(f"the kernel module {name} is not loaded", ask(context, "cat /proc/modules"))


@then("the kernel argument {argument} is given", expected=True)
@then("the kernel argument {argument} is not given", expected=False)
def argument_is_given(context: Any, argument: str, *, expected: bool) -> None:
    """A word, or the name before its ``=``, is among the kernel's arguments, or is not."""
    result = needs_success(ask(context, ["cat", "/proc/cmdline"]), "the kernel's arguments cannot be read")
    words = result.stdout.split()
    if (argument in {*words, *(word.partition("=")[0] for word in words)}) is not expected:
        missed(f"the kernel argument {argument} is {'not ' if expected else ''}given", result)


@then('the kernel setting {name} is "{value}"')
def setting_is(context: Any, name: str, value: str) -> None:
    """A setting of sysctl(8) such as ``kernel.yama.ptrace_scope`` is this."""
    path = f"/proc/sys/{name.replace('.', '/')}"
    result = needs_success(ask(context, ["cat", path]), f"there is no kernel setting {name}")
    if result.stdout.split() != value.split():
        missed(f"{name} is {result.stdout.strip()!r}, not {value!r}", result)


def _mount_of(context: Any, path: str) -> Mount:
    """The mount that a path is on: the deepest one, and of several on one folder the last."""
    real = needs_success(ask(context, ["readlink", "-e", "--", path]), f"there is no {path}").stdout.strip()
    mounts = guest_of(context).mounts()
    above = [each for each in mounts if real == each.target or real.startswith(f"{each.target.rstrip('/')}/")]
    return max(reversed(above), key=lambda mount: len(mount.target))


def _told(mount: Mount) -> str:
    return f"{mount.source} on {mount.target}, type {mount.type}: {','.join((*mount.options, *mount.super_options))}"


def _findmnt(context: Any) -> str:
    return "\n".join(map(_told, guest_of(context).mounts()))
