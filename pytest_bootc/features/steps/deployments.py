"""Deployments of bootc or ostree."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pytest_bootc.deployment import Deployment, DeploymentEntry
from pytest_bootc.features.steps.asking import expression, guest_of, missed
from pytest_bootc.features.steps.library import then

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ENTRIES: dict[str, Callable[[Deployment], DeploymentEntry | None]] = {
    "booted": lambda deployment: deployment.booted,
    "staged": lambda deployment: deployment.staged,
    "rollback": lambda deployment: deployment.rollback,
}


@then("the system is a deployment of {provider}")
def is_of(context: Any, provider: str) -> None:
    """bootc, or else ostree, knows what is booted; the first one that does is meant."""
    found = _deployment(context)
    if found.provider != provider:
        missed(f"the system is a deployment of {found.provider}, not of {provider}", repr(found))


@then('the booted deployment comes from "{reference}"')
def comes_from(context: Any, reference: str) -> None:
    """The image reference of the booted deployment is this."""
    found = _entry(context, "booted")
    if found.image != reference:
        missed(f"the booted deployment comes from {found.image or 'an unknown image'}, not from {reference}")


@then("the booted deployment comes from an image matching /{regex}/")
def comes_from_matching(context: Any, regex: str) -> None:
    """A regular expression is found in the image reference of the booted deployment."""
    found = _entry(context, "booted")
    if found.image is None or not expression(regex).search(found.image):
        missed(f"the booted deployment comes from {found.image or 'an unknown image'}, which does not match /{regex}/")


@then("the booted deployment has a digest")
def has_digest(context: Any) -> None:
    """The digest of the booted image's manifest is known (``sha256:`` and 64 digits)."""
    found = _entry(context, "booted")
    if found.digest is None or not _DIGEST.fullmatch(found.digest):
        missed(f"the booted deployment has no digest: {found.digest!r}", repr(found))


@then("there is a staged deployment", name="staged", expected=True)
@then("there is no staged deployment", name="staged", expected=False)
@then("there is a rollback deployment", name="rollback", expected=True)
@then("there is no rollback deployment", name="rollback", expected=False)
def there_is(context: Any, name: str, *, expected: bool) -> None:
    """There is a deployment that the next boot is to take (*staged*), or that one can go back to; or there is none."""
    found = _deployment(context)
    if (_ENTRIES[name](found) is not None) is not expected:
        missed(f"there is {'no' if expected else 'a'} {name} deployment", repr(found))


def _deployment(context: Any) -> Deployment:
    found = guest_of(context).deployment()
    if found is None:
        missed("the root is no deployment of bootc or ostree")
    return found


def _entry(context: Any, name: str) -> DeploymentEntry:
    deployment = _deployment(context)
    found = _ENTRIES[name](deployment)
    if found is None:
        missed(f"there is no {name} deployment", repr(deployment))
    return found
