"""Finding and ending the processes of a command that is past its deadline.

Closing a channel does not end its command, and sshd takes no signal for a root login (sshd's privilege separation
is off there). So a second session looks for the first one's process: both are children of the same sshd, which forks
in the order in which it was asked.
"""

from __future__ import annotations

from collections.abc import Sequence

# Fields of proc_pid_stat(5) behind the name in parentheses, which may hold anything: 2 is the parent, 4 the session
# (its leader is the login shell), 20 the start in clock ticks.
_SIBLINGS = """
read -r line < /proc/$$/stat; set -- ${line##*) }; own=$4
read -r line < /proc/$own/stat; set -- ${line##*) }; server=$2
for file in /proc/[0-9]*/stat; do
  read -r line 2>/dev/null < "$file" || continue
  set -- ${line##*) }
  if [ "$2" = "$server" ] && [ "$4" != "$own" ]; then echo "${20} $4"; fi
done
"""


def siblings_command() -> Sequence[str]:
    """The command that lists the leaders of the connection's other sessions."""
    return ("sh", "-c", _SIBLINGS)


def parse_siblings(text: str) -> list[int]:
    """The process ids that :func:`siblings_command` printed, in the order in which the processes were started."""
    started = sorted((int(ticks), int(process)) for ticks, process in map(str.split, text.splitlines()))
    return [process for _, process in started]


def signal_command(process: int, signal: str) -> Sequence[str]:
    """The command that sends a signal to the process group that this process leads."""
    return ("sh", "-c", f"kill -s {signal} -- -{process}")
