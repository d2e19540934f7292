"""The channel into a guest that needs neither its network nor its sshd: two virtio serial ports.

On the first an agent, some lines of POSIX sh, answers requests; on the second the guest tells how far its boot is.
The ports appear in /dev as soon as the kernel has the device, without udev, under a number that sysfs tells; they are
no terminals, so bytes pass unchanged and no getty takes them.
"""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass
from pathlib import Path

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import BackendError, GuestError
from pytest_bootc.machine.sockets import connect

CONTROL_PORT, EVENT_PORT = 1, 2

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
        command=$(printf '%b' "$command")
        ${{limit:+timeout -k 5 "$seconds"}} sh -c "$command" >$out 2>&1 </dev/null
        status=$?
        size=$(wc -c <$out)
        {{ echo "$number $status" $size; cat $out; }} >&3
    done
    sleep 1
done
"""

READY = f"""\
#!/bin/sh
{_FIND_PORT}\
# sshd is up; it can be reached once an interface has an address. Whether the machine has one, the bus tells.
networked() {{ grep -qs '^0x0200' /sys/bus/pci/devices/*/class; }}
addressed() {{ grep -qs '10\\.0\\.2\\.15' /proc/net/fib_trie; }}
while networked && ! addressed; do sleep 0.2; done
until echo "ready $(cat /proc/sys/kernel/random/boot_id)" >"$(port events)"; do sleep 0.2; done
"""


@dataclass(frozen=True)
class BootEvent:
    """What the guest told: ``hello`` (the agent is up), or ``ready`` with the boot id."""

    word: str
    boot_id: str = ""


class ControlChannel:
    """The host's ends of both ports. One request at a time."""

    def __init__(self, control: Path, events: Path, deadline: Deadline) -> None:
        self._control = connect(control, deadline)
        self._events = connect(events, deadline)
        self._lock = threading.Lock()
        self._number = 0
        self._buffer = b""
        self._event_buffer = b""

    def execute(self, command: str, deadline: Deadline) -> tuple[int, str]:
        """Run a line of POSIX sh as root; its exit status and its output, both streams mixed.

        :raises GuestError: the agent did not answer in time.
        :raises BackendError: the machine is gone.
        """
        with self._lock:
            self._number += 1
            escaped = "".join(_escape(letter) for letter in command)
            seconds = max(1, round(deadline.remaining()))
            try:
                self._control.sendall(f"{self._number} {seconds} {escaped}\n".encode())
            except OSError as error:
                raise BackendError("the machine is gone: its control channel is closed") from error
            while True:
                # An answer to a request that was given up on may still come first.
                number, status, size = [*self._line(deadline).split(), "0", "0", "0"][:3]
                output = self._take(int(size), deadline)
                if int(number) == self._number:
                    return int(status), output.decode(errors="replace")

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

    def _line(self, deadline: Deadline) -> str:
        while b"\n" not in self._buffer:
            self._more(deadline)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace")

    def _take(self, size: int, deadline: Deadline) -> bytes:
        while len(self._buffer) < size:
            self._more(deadline)
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _more(self, deadline: Deadline) -> None:
        chunk = _receive(self._control, deadline)
        if chunk is None:
            raise GuestError(f"the agent in the guest did not answer within {deadline.seconds:g} s")
        self._buffer += chunk


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
