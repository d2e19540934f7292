"""What the guest is asked for, in one request: several sources, each with a time limit and a size limit.

The guest needs a POSIX sh and ``head -c``. Each source prints when it is done, so what came before one that hangs is
there. Where the guest has timeout(1), it ends each source and, in the end, the whole request by itself. (That of
busybox ends only a source's shell, so what that has started may use up the time of the others.)
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_bootc.journal import COREDUMP_MATCH

#: The most that is taken of a core, in bytes.
MOST_CORE = 6 << 20
#: Stands in the command line of the processes that work for the request.
OWN_MARK = "pytest_bootc_evidence"

_SEPARATOR = "\x1e"
_LONGEST_SOURCE_SECONDS = 3
_ENDED = ("124", "137", "143")  # timeout(1): the time was up; the program had to be killed; and that of busybox
_LINES_BEFORE = 50
_BYTES_BEFORE = 10_000


@dataclass(frozen=True)
class Source:
    """A piece of POSIX sh and its limits: seconds on a host with KVM, and bytes of what it prints.

    ``seconds`` is 0 for what cannot hang. What may print without end is cut in the guest already (``endless``). It is
    run only where a file matches ``where``, if that is given, and its answer is empty otherwise. There are two rows of
    sources, one of them ``aside``: two processors are done in half the time, and what hangs holds up one row only.
    """

    name: str
    script: str
    seconds: float
    limit: int
    endless: bool = False
    aside: bool = False
    where: str = ""


@dataclass(frozen=True)
class Answer:
    """What a source printed. ``trouble`` says why it may not be all, and is empty where nothing went wrong."""

    text: str
    trouble: str = ""


# Each program that is started costs an emulated guest some hundredths of a second, and a busy one ten times that.
_FACTS = """\
read -r kernel </proc/version; echo "kernel: $kernel"
echo "guest's clock: $(date -u '+%Y-%m-%d %H:%M:%S UTC')"
read -r up idle </proc/uptime; echo "guest's uptime: $up s"
read -r taint </proc/sys/kernel/tainted; echo "taint: $taint"
read -r line </proc/cmdline; echo "kernel's arguments: $line"
cat /etc/os-release || cat /usr/lib/os-release"""

# Newest first: what is cut by time or size is what is oldest, and with an awk the reading ends where the test began.
# Times since boot neither jump with the guest's clock nor ask anything of the guest before a test has failed.
_JOURNAL = """\
read -r up idle </proc/uptime; echo $up
set -- journalctl --boot --no-pager --quiet --output=short-monotonic --reverse --lines=20000
command -v awk >/dev/null || exec "$@"
"$@" | awk -v up=$up -v since=ELAPSED 'BEGIN { began = up - since }
match($0, /^\\[ *[0-9]+\\.[0-9]+\\]/) {
    if (substr($0, 2, RLENGTH - 2) + 0 < began && (++before > LINES || (bytes += length($0)) > BYTES)) exit
}
{ print }'"""

# One look by two programs; ps(1) is not everywhere. What is gone by now is no error.
_PROCESSES = """\
exec 2>/dev/null
head -c 2048 /proc/loadavg /proc/meminfo /proc/[0-9]*/stat /proc/[0-9]*/wchan /proc/[0-9]*/cmdline
grep -E '^(Uid|VmRSS):' /proc/[0-9]*/status
:"""

_UNITS = """\
set -f
list='systemctl --no-pager --no-legend --plain --full'
failed=$($list --failed list-units) || { echo "$failed"; exit 1; }
jobs=$($list list-jobs)
echo "failed units:"; echo "${failed:-none}"; echo
echo "jobs:"; echo "${jobs:-none}"
set --
while read -r name rest; do [ -z "$name" ] || set -- "$@" "$name"; done <<X
$failed
X
while read -r id name type state; do [ "$state" != running ] || set -- "$@" "$name"; done <<X
$jobs
X
[ $# = 0 ] || { echo; systemctl status --no-pager --full --lines=20 -- "$@"; } || :"""

_COREDUMPS = f"""\
journalctl --boot --no-pager --quiet --output=short-monotonic --reverse --lines=20 {COREDUMP_MATCH}
cd /var/lib/systemd/coredump && set -- * && [ -e "$1" ] && {{ echo; echo "$PWD:"; ls -ln "$@"; }} || :"""

# systemd-coredump(8) has the boot id in the name of each. A whole one, or its name and size alone.
_CORE = f"""\
cd /var/lib/systemd/coredump || exit
boot=$(tr -d - </proc/sys/kernel/random/boot_id)
core=$(ls -t | grep -F ".$boot." | head -n 1)
[ -n "$core" ] || exit 0
size=$(wc -c <"$core"); echo $size "$core"
[ $size -gt {MOST_CORE} ] || base64 "$core\""""

# What the row aside prints goes to a file without a name, to be told at the end.
_AROUND = """\
exec 2>/dev/null; umask 077; command -v timeout >/dev/null && export T=y
for place in /run /tmp; do file=$place/pytest-bootc-evidence.$$; (: >$file) && break; done
exec 8>$file 9<$file; rm -f $file
"""
_TAKE = """\
# pytest_bootc_evidence
exec 3>&1
begin() { printf '\\036%s\\n' "$1"; }
end() { printf '\\036%s=%s\\n' "$1" "$2"; }
take() { begin $1; ${T:+timeout -k 1 $2} sh -c "$3" </dev/null 2>&1 3>&-; end $1 $?; }
cut() {
begin $1
s=$({ { ${T:+timeout -k 1 $2} sh -c "$4" </dev/null 2>&1 3>&- 4>&-; echo $? >&4; } | head -c "$3" >&3; } 4>&1)
end $1 $s
}
"""


def sources(elapsed: float) -> Sequence[Source]:
    """What is taken of a guest where a test began so many seconds ago; what matters most comes first."""
    journal = _JOURNAL.replace("ELAPSED", f"{elapsed:.1f}").replace("LINES", str(_LINES_BEFORE))
    journal = journal.replace("BYTES", str(_BYTES_BEFORE))
    return (
        Source("facts", _FACTS, 0, 16 << 10),
        Source("journal", journal, 2, 4 << 20, endless=True),
        Source("processes", _PROCESSES, 1, 2 << 20, endless=True),
        Source("units", _UNITS, 1, 512 << 10, aside=True),
        Source("coredumps", _COREDUMPS, 1, 256 << 10, aside=True),
        Source("mounts", "cat /proc/self/mountinfo; echo; df -h; df -i", 1, 256 << 10, aside=True),
        Source("core", _CORE, 2, MOST_CORE * 3 // 2, endless=True, aside=True, where="/var/lib/systemd/coredump/*"),
    )


def request(wanted: Sequence[Source], factor: float, seconds: int) -> str:
    """The command that takes them within so many seconds; ``factor`` is how much slower than with KVM the guest is."""
    rows = ["\n".join(_step(source, factor) for source in wanted if source.aside is aside) for aside in (False, True)]
    script = f"{_TAKE}{{\n:\n{rows[1]}\n}} >&8 3>&8 &\n{rows[0]}\nwait"
    # The shell that works is ended from outside: it is never itself in a system call that cannot be. The one around it
    # would say so, and the one around that if it had become the program (as with a last command).
    return f"{_AROUND}${{T:+timeout -s KILL {seconds}}} sh -c {shlex.quote(script)};cat <&9"


def _step(source: Source, factor: float) -> str:
    seconds = min(_LONGEST_SOURCE_SECONDS, math.ceil(source.seconds * factor))
    if source.endless:
        step = f"cut {source.name} {seconds} {source.limit} {shlex.quote(source.script)}"
    elif seconds:
        step = f"take {source.name} {seconds} {shlex.quote(source.script)}"
    else:
        step = f"begin {source.name}\n({source.script}\n) </dev/null 2>&1 3>&-; end {source.name} $?"
    if not source.where:
        return step
    nothing = f"begin {source.name}; end {source.name} 0"
    return f'set -- {source.where}\nif [ -e "$1" ]; then\n{step}\nelse {nothing}; fi'


def split(output: str, wanted: Sequence[Source]) -> dict[str, Answer]:
    """The answers in what the command of :func:`request` printed, by name. A source that was not reached has none."""
    known = {source.name: source for source in wanted}
    answers: dict[str, Answer] = {}
    for part in output.split(_SEPARATOR)[1:]:
        head, _, text = part.partition("\n")
        name, ended, status = head.partition("=")
        if name not in known:
            continue
        if ended and name in answers:
            answers[name] = _ended(answers[name].text, status, known[name])
        elif not ended:
            answers[name] = Answer(text, "the time for all of the evidence was up")
    return answers


def _ended(text: str, status: str, source: Source) -> Answer:
    encoded = text.encode(errors="replace")
    if len(encoded) >= source.limit:
        return Answer(encoded[: source.limit].decode(errors="ignore"), f"cut at {source.limit >> 10} KiB")
    if status in _ENDED:
        return Answer(text, "it took too long, and was ended")
    return Answer(text, "" if status == "0" else f"the commands for it ended with status {status}")
