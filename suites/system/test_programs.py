"""Programs of the image can do what they are there for: they have their rights, and containers can be run."""

from __future__ import annotations

import json
import re

import pytest

from pytest_bootc.guest import Guest
from pytest_bootc.machine.pool import VM

_SETUID = 0o4000
_WRITABLE_BY_OTHERS = 0o022
_POLICY = "/etc/containers/policy.json"
_REQUIREMENTS = ("insecureAcceptAnything", "reject", "signedBy", "signedBaseLayer", "sigstoreSigned")
# As ldconfig prints them, indented: what is in the cache, and what it finds in its folders.
_CACHED = re.compile(r"^\s+(\S+) \(.*\) => (\S+)$", re.MULTILINE)
_FOUND = re.compile(r"^\s+(\S+) -> (\S+)", re.MULTILINE)
_LOOK = 'while read -r path; do [ -e "$path" ] || echo "$path"; done'
_PODMAN_SECONDS = 60.0


@pytest.mark.parametrize(
    ("program", "capability"),
    [
        pytest.param("newuidmap", "cap_setuid", marks=pytest.mark.needs("program:newuidmap")),
        pytest.param("newgidmap", "cap_setgid", marks=pytest.mark.needs("program:newgidmap")),
        pytest.param("sudo", None, marks=pytest.mark.needs("program:sudo")),
    ],
)
def test_programs_have_their_rights(guest: Guest, program: str, capability: str | None) -> None:
    """Programs that users gain rights by are setuid root or, newuidmap(1) and newgidmap(1), have the capability for it.

    Tools that copy images lose mode bits and extended attributes easily; then nobody can use rootless containers, or
    become root. A program that others than root can write is one that they can become root by.
    """
    path = guest.succeed(f"command -v {program}").strip()
    mode_text, owner = guest.succeed(["stat", "-L", "-c", "%a %u", path]).split()
    mode = int(mode_text, 8)
    assert owner == "0", f"{path} belongs to user {owner}, not to root"
    assert not mode & _WRITABLE_BY_OTHERS, f"{path} can be written by others than root: its mode is {mode_text}"
    if mode & _SETUID:
        return
    assert capability is not None, f"{path} is not setuid root: its mode is {mode_text}"
    capabilities = guest.capabilities(path)
    in_effect = capabilities.permitted if capabilities.effective else ()
    assert capability in in_effect, (
        f"{path} has neither the setuid bit (its mode is {mode_text}) nor {capability} (it has {capabilities})"
    )


@pytest.mark.needs("program:ldconfig")
def test_the_linkers_cache_is_fresh(guest: Guest) -> None:
    """/etc/ld.so.cache names the libraries that are there: none is missing in it, and none of it is gone (ldconfig(8)).

    Where a library came with a later layer and nobody ran ldconfig, programs do not find it. Names are compared, in
    the folders that ldconfig looks into; it is told to change nothing.
    """
    cached = set(_CACHED.findall(guest.succeed(["ldconfig", "-p"])))
    there = {name for name, _ in _FOUND.findall(guest.succeed(["ldconfig", "-N", "-X", "-v"]))}
    missing = sorted(there - {name for name, _ in cached})
    assert not missing, f"libraries are missing in the linker's cache: {', '.join(missing)}"
    listed = "".join(f"{path}\n" for _, path in sorted(cached)).encode()
    looked = guest.execute(_LOOK, stdin=listed)
    assert looked.status == 0, f"the libraries of the linker's cache could not be looked for: {looked.stderr.strip()}"
    gone = looked.stdout.split()
    assert not gone, f"the linker's cache names libraries that are not there: {', '.join(gone)}"


@pytest.mark.needs(f"file:{_POLICY}")
def test_the_policy_for_images_can_be_read(guest: Guest) -> None:
    """/etc/containers/policy.json says what is required of images that no other rule is for.

    Without a default that can be read, neither podman nor bootc pulls anything (containers-policy.json(5)).
    """
    text = guest.succeed(["cat", _POLICY])
    try:
        policy = json.loads(text)
    except json.JSONDecodeError as error:
        raise AssertionError(f"{_POLICY} is not JSON: {error}") from None
    default = policy.get("default") if isinstance(policy, dict) else None
    assert isinstance(default, list), f"{_POLICY} has no default"
    assert default, f"the default of {_POLICY} is empty"
    kinds = [rule.get("type") if isinstance(rule, dict) else None for rule in default]
    unknown = [kind for kind in kinds if kind not in _REQUIREMENTS]
    assert not unknown, f"the default of {_POLICY} asks for {unknown[0]!r}; known are {', '.join(_REQUIREMENTS)}"


@pytest.mark.needs("program:podman")
def test_podman_works(vm: VM, guest: Guest) -> None:
    """``podman info`` works for root, and finds a storage driver (podman-info(1), containers-storage.conf(5))."""
    command = ["podman", "info", "--format", "json"]
    result = guest.execute(command, timeout=_PODMAN_SECONDS * vm.facts.time_factor)
    assert result.status == 0, f"podman info {result.outcome}: {result.stderr.strip()}"
    driver = json.loads(result.stdout).get("store", {}).get("graphDriverName")
    assert driver, "podman info names no storage driver"
