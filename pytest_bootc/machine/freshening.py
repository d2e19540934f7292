"""What a guest is asked to do before its boot is saved, and after a machine was started from that: POSIX sh.

A clone wakes up at the time of the save. Its clock is set, which would make timers believe that they have slept
through their hour; its pool of random numbers, which all clones have in common, gets bytes of its own (the kernel
does the same by the new vmgenid); and its kernel gets a name of its own, where programs can still look that up.
"""

from __future__ import annotations

from pytest_bootc.errors import GuestError

#: Waits until systemd has no job left, and tells what it thinks of the system and when the first timer that goes by
#: the wall clock elapses (seconds since the epoch; 0: unknown, nothing: none).
SETTLE = """\
export LC_ALL=C SYSTEMD_COLORS=0 TZ=UTC0
systemctl is-system-running --wait 2>/dev/null
until [ -z "$(systemctl list-jobs --no-legend 2>/dev/null)" ]; do sleep 0.2; done
systemctl show --property=NextElapseUSecRealtime --value '*.timer' 2>/dev/null | while read -r when; do
    [ -z "$when" ] || [ "$when" = n/a ] || date -u -d "$when" +%s 2>/dev/null || echo 0
done | sort -n | head -n 1
echo settled
"""

# The stamps (systemd.timer(5), Persistent=) say when a timer has elapsed last, also before the machine slept.
_REST_TIMERS = """\
timers=$({ systemctl show --property=Id,ActiveState,TimersCalendar '*.timer'; echo; } | while read -r line; do
    case $line in
        Id=*) id=${line#*=} ;;
        ActiveState=*) state=${line#*=} ;;
        TimersCalendar=*) calendar=yes ;;
        '') [ "$state$calendar" != activeyes ] || echo "$id"; id= state= calendar= ;;
    esac
done)
[ -z "$timers" ] || systemctl stop $timers
"""
_WAKE_TIMERS = """\
touch -c /var/lib/systemd/timers/stamp-* 2>/dev/null
[ -z "$timers" ] || systemctl start $timers
"""


# Without that module a name that nobody can look up would cost each sudo the time-outs of DNS. Read by the shell
# itself: in emulation the first run of any program costs a tenth of a second.
_NAME = """\
while read -r line; do
    case $line in
        hosts:*myhostname*)
            read -r name </proc/sys/kernel/hostname
            case $name in *-{suffix}) ;; *) echo "${{name%%.*}}-{suffix}" >/proc/sys/kernel/hostname ;; esac ;;
    esac
done </etc/nsswitch.conf
"""


def parse_settled(output: str) -> float | None:
    """When the first timer elapses, from what :data:`SETTLE` printed; ``None``: none goes by the wall clock.

    :raises GuestError: the guest said something else.
    """
    lines = output.split()
    if not lines or lines[-1] != "settled":
        raise GuestError("the guest did not say whether its boot has settled", details=output[-500:])
    numbers = [line for line in lines[:-1] if line.isdecimal()]
    return float(numbers[0]) if numbers else None


def freshen(now: float, seed: bytes, suffix: str, *, timers: bool) -> str:
    """Make a clone differ from others: POSIX sh.

    ``now`` is the time in seconds since the epoch, ``seed`` some random bytes, ``suffix`` what the name of the
    machine ends with, and ``timers`` whether one of them has slept through its hour.
    """
    clock = f"date -u -s @{now:.2f} >/dev/null || echo the clock could not be set\n"
    mixed = "".join(f"\\0{byte:03o}" for byte in seed)
    return (
        "export LC_ALL=C SYSTEMD_COLORS=0\n"
        + (f"{_REST_TIMERS}{clock}{_WAKE_TIMERS}" if timers else clock)
        + f"printf '%b' '{mixed}' >/dev/urandom\n"
        + _NAME.format(suffix=suffix)
        + "echo fresh\n"
    )
