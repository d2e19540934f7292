"""Podman: images and containers, of root or of the user."""

from __future__ import annotations

import json
from typing import Any

from pytest_bootc.features.steps.asking import ask, missed, needs_success, run, said, value_at
from pytest_bootc.features.steps.library import then, when
from pytest_bootc.features.steps.users import user_of

_RUN_SECONDS = 120.0


@then("the container image {image} exists", of_user=False)
@then("the user's container image {image} exists", of_user=True)
def image_exists(context: Any, image: str, *, of_user: bool) -> None:
    """Podman has the image in its own storage: root's, or the user's."""
    result = ask(context, ["podman", "image", "exists", image], user=_who(context, of_user=of_user))
    if result.status != 0:
        missed(f"Podman has no image {image}", result)


@when("I run `{command}` in a container of {image}", of_user=False)
@when("I run `{command}` in a container of {image} as the user", of_user=True)
def run_in_container(context: Any, command: str, image: str, *, of_user: bool) -> None:
    """Run a line of shell in a container of an image that is there, and remove the container; nothing is pulled."""
    words = ["podman", "run", "--rm", "--pull=never", image, "sh", "-c", command]
    run(context, words, user=_who(context, of_user=of_user), seconds=_RUN_SECONDS)


@then('Podman says that {path} is "{value}"', of_user=False)
@then('Podman says to the user that {path} is "{value}"', of_user=True)
def podman_says(context: Any, path: str, value: str, *, of_user: bool) -> None:
    """``podman info`` works, and has this at a path such as ``store.graphDriverName`` or ``host.security.rootless``."""
    command = ["podman", "info", "--format", "json"]
    result = ask(context, command, user=_who(context, of_user=of_user), seconds=_RUN_SECONDS)
    needs_success(result, "Podman does not tell about itself")
    found = value_at(json.loads(result.stdout), path, result)
    if said(found) != value:
        missed(f"{path} is {said(found)!r}, not {value!r}", result)


def _who(context: Any, *, of_user: bool) -> str | None:
    return user_of(context) if of_user else None
