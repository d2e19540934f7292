"""Signatures can be trusted: cosign tells what was signed from what was not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_bootc.guest import Guest
from pytest_bootc.machine.pool import VM
from pytest_bootc.shell import CommandResult

_SECONDS = 30.0
# What newer versions do by default takes a service of Sigstore.
_SERVICES = ("--use-signing-config", "--new-bundle-format")


@pytest.fixture
def folder(guest: Guest) -> Iterator[str]:
    """A folder in the guest that is removed again."""
    path = guest.succeed(["mktemp", "-d"]).strip()
    try:
        yield path
    finally:
        guest.succeed(["rm", "-r", path])


@pytest.mark.needs("program:cosign")
def test_cosign_tells_what_was_signed(vm: VM, guest: Guest, folder: str) -> None:
    """With a key pair of its own, cosign finds a file's signature good, and no other file's (cosign-verify-blob).

    No network is needed: neither a certificate nor the log is involved.
    """

    def cosign(word: str, *arguments: str) -> CommandResult:
        command = ["cosign", word, *arguments]
        return guest.execute(command, env={"COSIGN_PASSWORD": ""}, timeout=_SECONDS * vm.facts.time_factor)

    def options(word: str) -> list[str]:
        help_text = cosign(word, "--help").stdout
        return [f"{name}=false" for name in _SERVICES if name in help_text]

    signature = f"{folder}/signature"
    guest.succeed(f"echo signed >{folder}/signed; echo other >{folder}/other")
    pair = cosign("generate-key-pair", f"--output-key-prefix={folder}/key")
    assert pair.status == 0, f"cosign makes no key pair: {pair.stderr.strip()}"
    signing = [f"--key={folder}/key.key", "--tlog-upload=false", f"--output-signature={signature}"]
    signed = cosign("sign-blob", "--yes", *options("sign-blob"), *signing, f"{folder}/signed")
    assert signed.status == 0, f"cosign does not sign a file: {signed.stderr.strip()}"
    looking = [f"--key={folder}/key.pub", "--insecure-ignore-tlog=true", f"--signature={signature}"]
    looking += options("verify-blob")
    good = cosign("verify-blob", *looking, f"{folder}/signed")
    assert good.status == 0, f"cosign does not accept its own signature: {good.stderr.strip()}"
    bad = cosign("verify-blob", *looking, f"{folder}/other")
    assert bad.status != 0, "cosign accepts the signature of another file"
    assert "invalid signature" in bad.stderr, f"cosign refused the file for another reason: {bad.stderr.strip()}"
