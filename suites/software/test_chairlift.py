"""ChairLift's helpers: what polkit lets people start is there, and does nothing that it was not made for.

Source: the files of actions in ChairLift's sources, and polkit(8) for their annotations.
"""

from __future__ import annotations

import itertools
import re

import pytest

from pytest_bootc.guest import Guest

_ACTION = re.compile(r"^(io\.projectbluefin\.chairlift\.\S+):$((?:\n[ \t].*)*)", re.MULTILINE)
_PROGRAM = re.compile(r"org\.freedesktop\.policykit\.exec\.path -> (\S+)")
# The exit statuses of a shell that could not start the program.
_NOT_RUN = (126, 127)
# Another command, a word too many, none. They do nothing to the guest even where they are not refused.
_REFUSED = (("no-such-command",), ("rollback", "--dry-run", "too-much"), ())


@pytest.mark.needs("program:chairlift", "program:pkaction")
def test_what_polkit_lets_people_start_is_there(guest: Guest) -> None:
    """Each action of ChairLift names a program that can be executed (``pkaction --verbose``)."""
    missing = [
        f"{action} starts {program or 'nothing'}"
        for action, program in _helpers(guest).items()
        if not program or guest.execute(["test", "-x", program]).status != 0
    ]
    assert not missing, "what polkit allows cannot be started:\n" + "\n".join(f"  {each}" for each in missing)


@pytest.mark.needs("program:chairlift", "program:pkaction")
def test_helpers_refuse_what_they_were_not_made_for(guest: Guest) -> None:
    """A helper that runs as root ends with an error, and says so, where its words are not those of an action."""
    helpers = {program for action, program in _helpers(guest).items() if ".ublue." in action and program}
    assert helpers, "no action of ChairLift's names a helper"
    for helper, words in itertools.product(sorted(helpers), _REFUSED):
        result = guest.execute([helper, *words])
        line = " ".join([helper, *words])
        assert result.status not in _NOT_RUN, f"{helper} cannot be started: {result.stderr.strip()}"
        assert result.status != 0, f"`{line}` succeeded: {result.stdout.strip()!r}"
        assert result.stderr.strip(), f"`{line}` {result.outcome}, and did not say why"


def _helpers(guest: Guest) -> dict[str, str]:
    """The actions of ChairLift, and the program that each lets people start."""
    actions = dict(_ACTION.findall(guest.succeed(["pkaction", "--verbose"])))
    assert actions, "polkit knows no action of ChairLift's"
    return {name: found[1] if (found := _PROGRAM.search(text)) else "" for name, text in actions.items()}
