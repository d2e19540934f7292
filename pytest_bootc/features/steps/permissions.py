"""polkit: what the user may do."""

from __future__ import annotations

import shlex
from typing import Any

from pytest_bootc.features.steps.asking import ask, missed, needs_success
from pytest_bootc.features.steps.library import then
from pytest_bootc.features.steps.users import user_of


@then("the polkit action {action} exists")
def action_exists(context: Any, action: str) -> None:
    """The action is known to polkit (pkaction(1))."""
    needs_success(ask(context, ["pkaction", "--action-id", action]), f"polkit does not know the action {action}")


@then("polkit allows {action} to the user", expected=True)
@then("polkit does not allow {action} to the user", expected=False)
def polkit_allows(context: Any, action: str, *, expected: bool) -> None:
    """The user may do it without being asked for a password, or may not (pkcheck(1)); the action exists."""
    action_exists(context, action)
    result = ask(context, f"pkcheck --action-id {shlex.quote(action)} --process $$", user=user_of(context))
    if result.status not in (0, 1, 2, 3):
        missed(f"polkit cannot be asked for {action}", result)
    if (result.status == 0) is not expected:
        missed(f"polkit {'does not allow' if expected else 'allows'} {action} to {user_of(context)}", result)
