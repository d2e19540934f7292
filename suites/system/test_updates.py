"""A deployed system is updated from the image that it was installed from, by itself, and can say which that is.

Nothing is updated here: what the deployments say is read. Sources: bootc-status(8), the documentation of uupd.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from pytest_bootc.deployment import Deployment, DeploymentEntry
from pytest_bootc.guest import Guest

_REGISTRY_REFERENCE = re.compile(r"[\w.-]+(\.[\w-]+|:\d+)(:\d+)?(/[\w.-]+)+(:[\w.-]+)?(@sha256:[0-9a-f]{64})?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TIMERS = ("uupd.timer", "bootc-fetch-apply-updates.timer", "rpm-ostreed-automatic.timer")
_SETTINGS = "/etc/uupd/config.json"
_MODULES = ("flatpak", "brew", "system", "distrobox")


@pytest.mark.needs("deployment", "program:bootc")
def test_the_booted_image_can_be_found_again(guest: Guest) -> None:
    """The booted image is known in a form by which anybody gets the same one: its full reference and its digest."""
    _, booted = _deployed(guest)
    image = booted.image or ""
    if booted.transport == "registry":
        assert _REGISTRY_REFERENCE.fullmatch(image), f"the booted image is {image!r}, which names no registry's host"
    assert _DIGEST.fullmatch(booted.digest or ""), f"the digest of the booted image is {booted.digest!r}"


@pytest.mark.needs("deployment", "program:bootc")
def test_updates_come_from_the_image_that_is_booted(guest: Guest) -> None:
    """Updates come from the image that is booted, and bootc can make them.

    It cannot where packages were layered on top of the image (*incompatible*). Where another image is staged, the
    system is on its way there.
    """
    deployment, booted = _deployed(guest)
    assert not booted.incompatible, "bootc cannot update the booted deployment: it was changed by another tool"
    wanted = deployment.wanted_image
    assert wanted, "bootc knows no image that updates come from"
    if deployment.staged is None:
        assert wanted == booted.image, f"updates come from {wanted}, and {booted.image} is booted"


@pytest.mark.needs("deployment")
def test_updates_are_looked_for(guest: Guest) -> None:
    """A timer that updates the system is enabled, and waits for its time: uupd's, bootc's or rpm-ostree's."""
    units = [unit for unit in guest.units(*_TIMERS) if unit.load_state == "loaded"]
    told = ", ".join(f"{unit.name} is {unit.unit_file_state} and {unit.active_state}" for unit in units) or "has none"
    good = [unit for unit in units if unit.active and unit.unit_file_state.startswith("enabled")]
    assert good, f"no timer updates the system: {told}"


@pytest.mark.needs(f"file:{_SETTINGS}")
def test_uupd_understands_its_settings(guest: Guest) -> None:
    """/etc/uupd/config.json is JSON with modules that uupd has, and does not turn off the update of the system.

    uupd ends at once where it finds a key that it does not know.
    """
    text = guest.succeed(["cat", _SETTINGS])
    try:
        settings = json.loads(text, object_pairs_hook=_lowered)
    except json.JSONDecodeError as error:
        raise AssertionError(f"{_SETTINGS} is not JSON: {error}") from None
    assert isinstance(settings, dict), f"{_SETTINGS} is no object of JSON"
    modules = settings.get("modules", {})
    unknown = [name for name in modules if name not in _MODULES]
    assert not unknown, f"{_SETTINGS} has a module {unknown[0]!r}; uupd knows {', '.join(_MODULES)}"
    disabled = modules.get("system", {}).get("disable", False)
    assert disabled is False, f"{_SETTINGS} has modules.system.disable={disabled!r}: the system is never updated"


def _lowered(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are in lower case: uupd does not tell them apart."""
    return {name.lower(): value for name, value in members}


def _deployed(guest: Guest) -> tuple[Deployment, DeploymentEntry]:
    deployment = guest.deployment()
    assert deployment is not None, "neither bootc nor ostree says that this is a deployment"
    assert deployment.booted is not None, f"{deployment.provider} does not know which deployment is booted"
    return deployment, deployment.booted
