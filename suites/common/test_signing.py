"""Images are only taken from those who made this one: what bootc and podman pull must be signed, and can be verified.

Sources: containers-policy.json(5), containers-registries.d(5).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import yaml

from pytest_bootc.guest import Guest

_POLICY = "/etc/containers/policy.json"
_UNIVERSAL_BLUE = "ghcr.io/ublue-os"
_SIGNED = ("signedBy", "sigstoreSigned")
_ONE_FILE = ("keyPath", "rekorPublicKeyPath", "caPath")
_SEVERAL_FILES = ("keyPaths", "rekorPublicKeyPaths")
# The SHA-256 of the public keys that Universal Blue signs with: one is in use, and one is there to be changed to.
_KEYS = (
    "af78ecfda6eb21c35195af3739341715e9cfc3f2f5911dd9c10b0670547bf6e8 "
    "b723467015ba562d40b4645c98c51c65d8254bb59444f6e9962debcfe2315da0"
)
_CONFIGURATIONS = """
for file in /usr/share/containers/registries.d/*.yaml /etc/containers/registries.d/*.yaml; do
    [ ! -e "$file" ] || { echo ---; cat "$file" || exit; }
done
"""

Rules = Sequence[Mapping[str, Any]]

pytestmark = pytest.mark.needs(f"file:{_POLICY}")


@pytest.mark.parametrize(
    "scope",
    [
        pytest.param(_UNIVERSAL_BLUE, marks=pytest.mark.image("bluefin", "bazzite", "aurora")),
        pytest.param("ghcr.io/projectbluefin", marks=pytest.mark.image("bluefin", "dakota")),
    ],
)
def test_updates_must_be_signed(guest: Guest, scope: str) -> None:
    """What comes from where this image's updates do is taken with a signature only."""
    rules = _scopes(guest).get(scope)
    assert rules, f"{_POLICY} has no rule for {scope}, so images without a signature are taken from there"
    unsigned = [str(rule.get("type")) for rule in rules if rule.get("type") not in _SIGNED]
    assert not unsigned, f"{_POLICY} asks for no signature of {scope}, but for {', '.join(unsigned)}"


@pytest.mark.image("bluefin", "bazzite", "aurora")
def test_the_keys_are_those_of_universal_blue(guest: Guest) -> None:
    """The rule for Universal Blue's images names both of its keys, and no other."""
    paths = [path for rule in _scopes(guest).get(_UNIVERSAL_BLUE, ()) for path in _files(rule)]
    found = guest.hash_files(paths)
    strange = [path for path in paths if found.get(path) not in _KEYS.split()]
    assert not strange, f"not a key of Universal Blue: {', '.join(strange)}"
    missing = sorted(set(_KEYS.split()) - set(found.values()))
    assert not missing, f"{_POLICY} does not name the key with the SHA-256 {' or '.join(missing)}"


def test_the_keys_of_the_policy_are_there(guest: Guest) -> None:
    """Each file that a rule needs is there, and those for sigstore are keys or certificates in PEM.

    Otherwise nothing that the rule is for can be pulled. Not judged where no rule needs any.
    """
    needed = [(path, name, rule) for name, rules in _scopes(guest).items() for rule in rules for path in _files(rule)]
    if not needed:
        pytest.skip(f"not judged: no rule of {_POLICY} names a key")
    told = [f"  {path}, for {name}: {why}" for path, name, rule in needed if (why := _trouble(guest, path, rule))]
    assert not told, "\n".join([f"keys of {_POLICY} cannot be used:", *told])


def test_signatures_are_looked_for(guest: Guest) -> None:
    """Where a rule asks for sigstore's signatures, the configuration of the registry says that it has them.

    Without *use-sigstore-attachments* none is found, and nothing can be pulled. Not judged where no rule asks for any.
    """
    scopes = _scopes(guest)
    asking = [name for name, rules in scopes.items() if "sigstoreSigned" in [rule.get("type") for rule in rules]]
    if not asking:
        pytest.skip(f"not judged: no rule of {_POLICY} asks for a signature of sigstore")
    configurations = _configurations(guest)
    missing = [name for name in asking if not _applying(name, configurations).get("use-sigstore-attachments")]
    assert not missing, f"use-sigstore-attachments is not set in registries.d for {', '.join(missing)}"


def _scopes(guest: Guest) -> dict[str, Rules]:
    """The policy's rules for registries, by the registry, namespace or repository that they are for."""
    policy = json.loads(guest.succeed(["cat", _POLICY]))
    return {name: rules for name, rules in policy.get("transports", {}).get("docker", {}).items() if name}


def _files(rule: Mapping[str, Any]) -> Iterator[str]:
    for part in (rule, rule.get("fulcio", {})):
        yield from (str(part[name]) for name in _ONE_FILE if name in part)
        yield from (str(path) for name in _SEVERAL_FILES for path in part.get(name, []))


def _trouble(guest: Guest, path: str, rule: Mapping[str, Any]) -> str:
    """Why a file is of no use to a rule; empty if it is."""
    if guest.execute(["test", "-s", path]).status != 0:
        return "there is no such file, or it is empty"
    if rule.get("type") == "sigstoreSigned" and guest.execute(["grep", "-q", "-e", "-----BEGIN ", path]).status != 0:
        return "it has no key in PEM"
    return ""


def _configurations(guest: Guest) -> dict[str, Mapping[str, Any]]:
    """What registries.d says, by registry, namespace or repository; by an empty name what it says of all others."""
    found: dict[str, Mapping[str, Any]] = {}
    for document in yaml.safe_load_all(guest.succeed(_CONFIGURATIONS)):
        if document:
            found |= {"": document.get("default-docker", {}), **document.get("docker", {})}
    return found


def _applying(name: str, configurations: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The configuration of the longest name that this one is, or is in."""
    above = [known for known in configurations if not known or f"{name}/".startswith(f"{known}/")]
    return configurations[max(above, key=len)] if above else {}
