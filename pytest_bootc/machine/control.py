"""The channel into a guest that needs neither its network nor its sshd: two virtio serial ports.

On the first an agent, some lines of POSIX sh, answers requests; on the second the guest tells how far its boot is.
The ports appear in /dev as soon as the kernel has the device, without udev, under a number that sysfs tells; they are
no terminals, so bytes pass unchanged and no getty takes them.
"""

from __future__ import annotations

import math
import secrets
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import BackendError, GuestError
from pytest_bootc.machine.base import PULSE
from pytest_bootc.machine.sockets import connect

CONTROL_PORT, EVENT_PORT = 1, 2
_JOURNALD = "/sys/fs/cgroup/system.slice/systemd-journald.service"

_FIND_PORT = """\
port() {
    for folder in /sys/class/virtio-ports/*; do
        read -r name <"$folder/name" && [ "$name" = "pytest-bootc.$1" ] && echo "/dev/${folder##*/}" && return
    done
}
"""

AGENT = f"""\
#!/bin/sh
{_FIND_PORT}\
# What the scheduler has counted for systemd and for journald, without starting a program: either of them has done
# something since the last time, or nothing has changed. A kernel that does not count says 0 0 0 (proc_pid_schedstat).
counted() {{ read -r line <"/proc/$1/schedstat" && [ "$line" != '0 0 0' ] && echo "$1 $line"; }}
pulse() {{ counted 1 && read -r main <{_JOURNALD}/cgroup.procs && counted "$main"; }}
# A request is a line: NUMBER SECONDS COMMAND, the command with the escapes of printf's %b.
# The answer is a line: NUMBER STATUS SIZE, and SIZE bytes of output.
out=/run/pytest-bootc-agent.out
limit=; command -v timeout >/dev/null && limit=yes
# Where the driver is a module of the disk's own, the ports come when udev has loaded it.
until events=$(port events) && control=$(port control) && [ -c "$events" ] && [ -c "$control" ]; do sleep 0.2; done
echo hello >"$events"
exec 3<>"$control"
while :; do
    while read -r number seconds command <&3; do
        if [ "$command" = {PULSE} ]; then
            output=$(pulse 2>/dev/null)
            printf '%s %s %s\\n%s' "$number" $? "${{#output}}" "$output" >&3
            continue
        fi
        command=$(printf '%b' "$command")
        ${{limit:+timeout -k 5 "$seconds"}} sh -c "$command" >$out 2>&1 </dev/null 3>&-
        status=$?
        size=$(wc -c <$out)
        {{ echo "$number $status" $size; head -c "$size" $out; }} >&3
        # A file and a port of its own for each: what a command leaves running may write on, and keep files open.
        rm -f $out
    done
    sleep 1
done
"""

READY = f"""\
#!/bin/sh
{_FIND_PORT}\
# sshd is up; it can be reached once an interface has an address. Whether the machine has one, the bus tells.
networked() {{ grep -qs '^0x0200' /sys/bus/pci/devices/*/class; }}
addressed() {{ grep -qs '10\\.0\\.2\\.15$' /proc/net/fib_trie; }}
while networked && ! addressed; do sleep 0.2; done
until echo "ready $(cat /proc/sys/kernel/random/boot_id)" >"$(port events)"; do sleep 0.2; done
"""


@dataclass(frozen=True)
class BootEvent:
    """What the guest told: ``hello`` (the agent is up), or ``ready`` with the boot id."""

    word: str
    boot_id: str = ""


@dataclass(frozen=True)
class _Head:
    """The first line of an answer: of which request it is, the exit status, and how many bytes of output follow."""

    number: int
    status: int
    size: int


class ControlChannel:
    """The host's ends of both ports. One request at a time."""

    def __init__(self, control: Path, events: Path, deadline: Deadline) -> None:
        self._control = connect(control, deadline)
        try:
            self._events = connect(events, deadline)
        except BackendError:
            self._control.close()
            raise
        self._begin(0)

    def _begin(self, number: int) -> None:
        self._lock = threading.Lock()
        self._number = number
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._event_buffer = b""

    @classmethod
    def over(cls, control: socket.socket, events: socket.socket, deadline: Deadline) -> ControlChannel:
        """Go on over connections that somebody has held: what he was still to be answered is passed over.

        Raises as :meth:`execute` does.
        """
        channel = cls.__new__(cls)
        channel._control, channel._events = control, events
        channel._begin(secrets.randbelow(1 << 30))
        channel._pass_over(deadline)
        return channel

    def execute(self, command: str, deadline: Deadline) -> tuple[int, str]:
        """Run a line of POSIX sh as root; its exit status and its output, both streams mixed.

        :raises GuestError: the agent did not answer in time.
        :raises BackendError: the machine is gone.
        """
        with self._lock:
            self._number += 1
            escaped = "".join(_escape(letter) for letter in command)
            # The agent ends the command, but after we have given up: a status of 124 is the command's own.
            seconds = math.ceil(deadline.remaining()) + 1
            self._send(f"{self._number} {seconds} {escaped}\n".encode(), deadline)
            while True:
                # An answer to a request that was given up on may still come first.
                head, output = self._answer(deadline)
                if head.number == self._number:
                    return head.status, output.decode(errors="replace")

    def next_event(self, deadline: Deadline) -> BootEvent | None:
        """The next thing that the guest tells of its boot; ``None`` at the deadline.

        :raises BackendError: the machine is gone.
        """
        while b"\n" not in self._event_buffer:
            chunk = _receive(self._events, deadline)
            if chunk is None:
                return None
            self._event_buffer += chunk
        line, _, self._event_buffer = self._event_buffer.partition(b"\n")
        word, _, boot_id = line.decode(errors="replace").strip().partition(" ")
        return BootEvent(word, boot_id)

    def close(self) -> None:
        """Let go of both ports."""
        self._control.close()
        self._events.close()

    def _pass_over(self, deadline: Deadline) -> None:
        self._number += 1
        self._send(f"{self._number} {math.ceil(deadline.remaining()) + 1} :\n".encode(), deadline)
        answer = f"{self._number} 0 0\n".encode()
        while (end := self._buffer.find(answer)) < 0:
            self._more(deadline)
        del self._buffer[: end + len(answer)]

    def _send(self, request: bytes, deadline: Deadline) -> None:
        try:
            self._control.settimeout(max(deadline.remaining(), 0.001))
            self._control.sendall(request)
        except TimeoutError as error:
            # The agent must not take half a command for a whole one: at the end of file it drops it.
            self._control.close()
            raise GuestError("the agent in the guest does not take commands any more") from error
        except OSError as error:
            raise BackendError("the machine is gone: its control channel is closed") from error

    def _answer(self, deadline: Deadline) -> tuple[_Head, bytes]:
        """The next answer. What has come of it when the time is up stays here, and is gone on with next time."""
        while self._head is None:
            end = self._buffer.find(b"\n")
            if end < 0:
                self._more(deadline)
                continue
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._head = _parse(line)
        head = self._head
        while len(self._buffer) < head.size:
            self._more(deadline)
        output = bytes(self._buffer[: head.size])
        del self._buffer[: head.size]
        self._head = None
        return head, output

    def _more(self, deadline: Deadline) -> None:
        chunk = _receive(self._control, deadline)
        if chunk is None:
            raise GuestError(f"the agent in the guest did not answer within {deadline.seconds:g} s")
        self._buffer += chunk


def _parse(line: bytes) -> _Head:
    # Without a size there is no output: the command has removed its own file.
    words = line.split()
    if not 2 <= len(words) <= 3 or not all(word.isdigit() for word in words):
        raise GuestError("the agent in the guest answers with something else", details=repr(line[:200]))
    return _Head(*(int(word) for word in [*words, b"0"][:3]))


def _receive(connection: socket.socket, deadline: Deadline) -> bytes | None:
    """Some bytes; ``None`` when none came in time."""
    connection.settimeout(max(deadline.remaining(), 0.001))
    try:
        chunk = connection.recv(1 << 16)
    except TimeoutError:
        return None
    except OSError as error:
        raise BackendError("the machine is gone: its control channel broke") from error
    if not chunk:
        raise BackendError("the machine is gone: its control channel is closed")
    return chunk


def _escape(letter: str) -> str:
    """Text as printf's %b turns back: everything but plain ASCII as octal bytes."""
    if letter == "\\" or not (" " < letter < "\x7f"):
        return "".join(f"\\0{byte:03o}" for byte in letter.encode())
    return letter
