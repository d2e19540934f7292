"""The system is the image's, as it was built: nothing was layered over it, and it is known which image it is."""

from __future__ import annotations

import json

import pytest

from pytest_bootc.guest import Guest

_LAYERED = (
    "requested-packages",
    "requested-local-packages",
    "requested-base-removals",
    "requested-base-local-replacements",
)


@pytest.mark.needs("program:rpm-ostree", "file:/run/ostree-booted")
def test_nothing_is_layered(guest: Guest) -> None:
    """No deployment has packages that were added, replaced or removed on the machine (rpm-ostree(1)).

    They make an update of the image fail sooner or later, and bootc refuses to make any (bootc-upgrade(8)).
    """
    result = guest.execute(["rpm-ostree", "status", "--json"])
    assert result.status == 0, f"rpm-ostree status {result.outcome}: {result.stderr.strip()}"
    deployments = json.loads(result.stdout).get("deployments")
    assert deployments, "rpm-ostree knows no deployment"
    changed = [
        f"  {deployment.get('checksum', 'a deployment')[:12]} has {kind}: {', '.join(map(str, deployment[kind]))}"
        for deployment in deployments
        for kind in _LAYERED
        if deployment.get(kind)
    ]
    assert not changed, "the image was changed on the machine:\n" + "\n".join(changed)
