"""Shops that wait in the background take next to no time of the processor."""

from __future__ import annotations

import pytest

from pytest_bootc.deadline import Deadline
from pytest_bootc.guest import Guest
from pytest_bootc.machine.pool import VM
from pytest_bootc.shell import wait_for

_SHOPS = "gnome-software|bazaar|plasma-discover"
_MOST_PERCENT = 5.0
_WINDOW_SECONDS = 10.0
_PATIENCE_SECONDS = 180.0
_PROCESSES = f"pgrep -x '{_SHOPS}'"
# Fields 14 and 15 of stat are the time in user and kernel mode, in ticks (proc_pid_stat(5)); the name may have spaces.
_USED = f"""
used() {{ cat $(for id in $({_PROCESSES}); do echo /proc/$id/stat; done) | sed 's/.*) //' |
    awk '{{ticks += $12 + $13}} END {{print ticks + 0}}'; }}
before=$(used)
sleep "$1"
echo $before $(used) $(getconf CLK_TCK)
"""


@pytest.mark.needs(f"command:{_PROCESSES}")
def test_shops_come_to_rest(vm: VM, guest: Guest) -> None:
    """The shops that run take less than 5 % of one processor, once they have fetched what is new."""
    seen: list[float] = []  # the last look

    def rest() -> bool:
        before, after, ticks = map(int, guest.succeed(["sh", "-c", _USED, "sh", f"{_WINDOW_SECONDS:.0f}"]).split())
        seen[:] = [100 * (after - before) / ticks / _WINDOW_SECONDS]
        return seen[0] < _MOST_PERCENT

    limit = Deadline.after(_PATIENCE_SECONDS * vm.facts.time_factor)
    what = f"the shops in the background to take less than {_MOST_PERCENT:.0f} % of a processor"
    wait_for(rest, limit, what=what, last=lambda: "".join(f"They took {percent:.0f} %." for percent in seen))
