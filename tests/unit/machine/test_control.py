"""The agent's own script, run by the shells of this host on a terminal without a line discipline, and its channel.

A pseudo-terminal in raw mode is what a virtio port is to a shell: a character device that passes bytes unchanged.
"""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import BackendError, Blame, GuestError
from pytest_bootc.machine.base import PULSE
from pytest_bootc.machine.control import AGENT, READY, BootEvent, ControlChannel

SHELLS = [shell for shell in ("dash", "busybox", "bash") if shutil.which(shell)]


class Port:
    """A terminal as the guest's end, a listening socket as QEMU's, and a thread that passes bytes between them."""

    def __init__(self, socket_path: Path) -> None:
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.device = Path(os.ttyname(self._slave))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(socket_path))
        self._listener.listen()
        self._stop, self._stopped = os.pipe()
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._pass)
        self._thread.start()

    def _pass(self) -> None:
        waited: list[int | socket.socket] = [self._listener, self._stop]
        if self._stop in select.select(waited, [], [])[0]:
            return
        self._connection, _ = self._listener.accept()
        while True:
            watched: list[int | socket.socket] = [self._connection, self._master, self._stop]
            ready = select.select(watched, [], [])[0]
            if self._stop in ready:
                return
            if self._master in ready:
                self._connection.sendall(os.read(self._master, 1 << 16))
            if self._connection in ready:
                chunk = self._connection.recv(1 << 16)
                if not chunk:
                    return
                while chunk:  # never block on the terminal: the agent may be waiting for us to read
                    _, writable, _ = select.select([], [self._master], [], 0.05)
                    if writable:
                        chunk = chunk[os.write(self._master, chunk[:512]) :]

    def close(self) -> None:
        os.write(self._stopped, b"x")
        self._thread.join(10)
        for descriptor in (self._master, self._slave, self._stop, self._stopped):
            os.close(descriptor)
        self._listener.close()
        if self._connection is not None:
            self._connection.close()


class Guest:
    """A folder that looks to the scripts like the parts of a guest that they use."""

    def __init__(self, folder: Path, shell: str) -> None:
        self.folder = folder
        self.output = folder / "out"
        self.ports = {name: Port(folder / name) for name in ("control", "events")}
        self.path = os.environ["PATH"]
        self.argv = [shell]
        if shell == "busybox":
            applets = folder / "bin"
            applets.mkdir()
            program = str(shutil.which("busybox"))
            subprocess.run([program, "--install", "-s", applets], check=True)
            self.path, self.argv = str(applets), [program, "sh"]
        sysfs, devices = folder / "sys", folder / "dev"
        devices.mkdir()
        for number, (name, port) in enumerate([("control", self.ports["control"]), ("events", self.ports["events"])]):
            described = sysfs / f"vport2p{number}"
            described.mkdir(parents=True)
            (described / "name").write_text(f"pytest-bootc.{name}\n")
            (devices / described.name).symlink_to(port.device)
        other = sysfs / "vport0p1"
        other.mkdir()
        (other / "name").write_text("org.qemu.guest_agent.0\n")
        (sysfs / "vport9p9").mkdir()  # without a name

    def script(self, text: str) -> Path:
        for real, here in (
            ("/sys/class/virtio-ports", self.folder / "sys"),
            ('"/dev/', f'"{self.folder}/dev/'),
            ("/run/pytest-bootc-agent.out", self.output),
            ("/sys/bus/pci/devices", self.folder / "pci"),
            ("/proc/net/fib_trie", self.folder / "fib_trie"),
            ('"/proc/$1/schedstat', f'"{self.folder}/proc/$1/schedstat'),
            ("/sys/fs/cgroup/system.slice/systemd-journald.service", self.folder),
        ):
            text = text.replace(real, str(here))
        path = self.folder / "script"
        path.write_text(text)
        return path

    def run(self, text: str) -> subprocess.Popen[bytes]:
        (self.folder / "input").write_text("not for a command\n")
        with (self.folder / "input").open() as stdin:
            return subprocess.Popen(
                [*self.argv, self.script(text)],
                env={"PATH": self.path, "LC_ALL": "C.UTF-8"}, cwd=self.folder, start_new_session=True,
                stdin=stdin, stderr=subprocess.DEVNULL,
            )  # fmt: skip

    def channel(self) -> ControlChannel:
        return ControlChannel(self.folder / "control", self.folder / "events", Deadline.after(10))


def end(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def soon() -> Deadline:
    return Deadline.after(20)


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Callable[[str], Guest]]:
    with ExitStack() as stack:

        def make(shell: str) -> Guest:
            made = Guest(tmp_path, shell)
            for port in made.ports.values():
                stack.callback(port.close)
            return made

        yield make


@pytest.fixture(params=SHELLS)
def channel(request: pytest.FixtureRequest, guest: Callable[[str], Guest]) -> Iterator[ControlChannel]:
    """The channel to an agent that one of the shells runs."""
    made = guest(request.param)
    connected = made.channel()
    process = made.run(AGENT)
    assert connected.next_event(soon()) == BootEvent("hello")
    yield connected
    connected.close()
    end(process)


def test_status_and_both_outputs(channel: ControlChannel) -> None:
    assert channel.execute("echo out; echo err >&2; exit 3", soon()) == (3, "out\nerr\n")
    assert channel.execute("true", soon()) == (0, "")
    assert channel.execute("no-such-program-xyz", soon())[0] == 127
    assert channel.execute("kill -9 $$", soon())[0] == 128 + 9
    assert channel.execute("exit 124", soon())[0] == 124


@pytest.mark.parametrize(
    "text",
    [
        "a b  c ", " lead", "tab\there", "new\nline", "it's", 'say "x"', "$HOME `id` $(id)",
        "back\\slash \\n \\0101 \\c",
        "ü €𝄞 日本", "100% %s %b", "*", "#x", ";|&<>()", "\x01\x7f\x1b[0m", "-n", "~", "\\",
    ],
)  # fmt: skip
def test_a_command_arrives_as_it_was_sent(channel: ControlChannel, text: str) -> None:
    quoted = "'" + text.replace("'", "'\\''") + "'"
    assert channel.execute(f"printf %s {quoted}", soon()) == (0, text)


def test_a_command_may_have_many_lines(channel: ControlChannel) -> None:
    assert channel.execute("if true\nthen\n  echo yes # comment\nfi\n\ncat <<E\n$((1 + 2))\nE\n", soon()) == (
        0,
        "yes\n3\n",
    )


def test_an_empty_command(channel: ControlChannel) -> None:
    assert channel.execute("", soon()) == (0, "")
    assert channel.execute("echo next", soon()) == (0, "next\n")


def test_a_pulse(channel: ControlChannel, tmp_path: Path) -> None:
    for process, line in (("1", "12345 678 9"), ("77", "5 6 7")):
        (tmp_path / "proc" / process).mkdir(parents=True)
        (tmp_path / "proc" / process / "schedstat").write_text(f"{line}\n")
    assert channel.execute(PULSE, soon())[0] != 0, "there is no journald"
    (tmp_path / "cgroup.procs").write_text("77\n78\n")
    assert channel.execute(PULSE, soon()) == (0, "1 12345 678 9\n77 5 6 7")
    assert channel.execute("echo next", soon()) == (0, "next\n")
    (tmp_path / "proc/77/schedstat").write_text("0 0 0\n")
    assert channel.execute(PULSE, soon())[0] != 0, "the kernel does not count"


def test_output_is_bytes_that_pass_unchanged(channel: ControlChannel) -> None:
    status, output = channel.execute(r"printf '\001\000\003\004\n\n\r\377\021\023\177'", soon())
    assert (status, output.encode("latin-1", "replace")) == (0, b"\x01\x00\x03\x04\n\n\r?\x11\x13\x7f")
    assert channel.execute("echo 1 2 3; echo 7 0 5", soon()) == (0, "1 2 3\n7 0 5\n")


def test_much_output_and_a_long_command(channel: ControlChannel) -> None:
    status, output = channel.execute("head -c 400000 /dev/zero | tr '\\0' x", soon())
    assert (status, len(output), set(output)) == (0, 400_000, {"x"})
    long = "y" * 20_000 + "ü" * 1000
    assert channel.execute(f"printf %s {long} | wc -c", soon()) == (0, f"{20_000 + 2000}\n")


def test_a_command_longer_than_the_kernel_takes_is_refused_by_the_shell(channel: ControlChannel) -> None:
    status, output = channel.execute(f": {'z' * 140_000}", Deadline.after(60))
    assert status in (126, 127, 2)
    assert "rgument list too long" in output
    assert channel.execute("echo next", soon()) == (0, "next\n")


def test_a_command_has_no_input_and_no_port(channel: ControlChannel) -> None:
    assert channel.execute("cat; echo $?", soon()) == (0, "0\n")
    status, output = channel.execute("echo 1 0 0 >&3", soon())
    assert status != 0
    assert "3" in output
    assert channel.execute("echo next", soon()) == (0, "next\n")


def test_a_command_that_takes_too_long_is_ended(channel: ControlChannel) -> None:
    began = time.monotonic()
    with pytest.raises(GuestError) as caught:
        channel.execute("echo begun; sleep 60; echo never", Deadline.after(1.4))
    assert caught.value.brief == "the agent in the guest did not answer within 1.4 s"
    assert caught.value.blame is Blame.IMAGE
    assert channel.execute("echo next", soon()) == (0, "next\n")
    assert time.monotonic() - began < 15


def test_output_that_comes_late_is_not_taken_for_the_next_commands(channel: ControlChannel) -> None:
    for _ in range(3):
        with pytest.raises(GuestError):
            channel.execute("sleep 0.3; head -c 300000 /dev/zero | tr '\\0' z", Deadline.after(0.3))
    assert channel.execute("echo mine", soon()) == (0, "mine\n")


def test_what_goes_on_in_the_background_disturbs_nobody(channel: ControlChannel, tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    status, _ = channel.execute(f"(while :; do echo noise; done) & echo $! >{noted}", soon())
    try:
        assert status == 0
        for number in range(20):
            assert channel.execute(f"echo {number}", soon()) == (0, f"{number}\n")
    finally:
        os.kill(int(noted.read_text()), signal.SIGKILL)


def test_a_command_that_removes_its_own_output(channel: ControlChannel, tmp_path: Path) -> None:
    assert channel.execute(f"rm -f {tmp_path}/out; exit 4", soon()) == (4, "")
    assert channel.execute("echo next", soon()) == (0, "next\n")


@pytest.mark.parametrize("shell", SHELLS)
def test_an_agent_waits_for_its_ports(guest: Callable[[str], Guest], shell: str) -> None:
    made = guest(shell)
    devices = sorted((made.folder / "dev").iterdir())
    targets = [device.readlink() for device in devices]
    for device in devices:
        device.unlink()
    channel, process = made.channel(), made.run(AGENT)
    try:
        assert channel.next_event(Deadline.after(0.5)) is None
        for device, target in zip(devices, targets, strict=True):
            device.symlink_to(target)
        assert channel.next_event(soon()) == BootEvent("hello")
        assert channel.execute("echo here", soon()) == (0, "here\n")
    finally:
        channel.close()
        end(process)


@pytest.mark.parametrize("shell", SHELLS)
def test_an_agent_that_is_started_again(guest: Callable[[str], Guest], shell: str) -> None:
    made = guest(shell)
    channel, process = made.channel(), made.run(AGENT)
    try:
        assert channel.next_event(soon()) == BootEvent("hello")
        end(process)
        process = made.run(AGENT)
        assert channel.next_event(soon()) == BootEvent("hello")
        assert channel.execute("echo again", soon()) == (0, "again\n")
    finally:
        channel.close()
        end(process)


@pytest.mark.parametrize("shell", SHELLS)
def test_readiness_waits_for_an_address_where_there_is_a_network(guest: Callable[[str], Guest], shell: str) -> None:
    made = guest(shell)
    interface = made.folder / "pci" / "0000:00:02.0"
    interface.mkdir(parents=True)
    (interface / "class").write_text("0x020000\n")
    (made.folder / "fib_trie").write_text("  |-- 127.0.0.1\n     /32 host LOCAL\n  |-- 10.0.2.150\n")
    channel, process = made.channel(), made.run(READY)
    try:
        assert channel.next_event(Deadline.after(0.6)) is None
        (made.folder / "fib_trie").write_text("  |-- 10.0.2.15\n     /32 host LOCAL\n")
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert channel.next_event(soon()) == BootEvent("ready", boot_id)
        assert process.wait(10) == 0
    finally:
        channel.close()
        process.kill()
        process.wait()


@pytest.mark.parametrize("shell", SHELLS)
def test_readiness_without_a_network(guest: Callable[[str], Guest], shell: str) -> None:
    made = guest(shell)
    disk = made.folder / "pci" / "0000:00:03.0"
    disk.mkdir(parents=True)
    (disk / "class").write_text("0x010000\n")
    channel, process = made.channel(), made.run(READY)
    try:
        event = channel.next_event(soon())
        assert event is not None
        assert event.word == "ready"
    finally:
        channel.close()
        process.kill()
        process.wait()


class Peer:
    """The other ends of both sockets, where the test itself plays the guest."""

    def __init__(self, folder: Path) -> None:
        self._listeners = {}
        for name in ("control", "events"):
            self._listeners[name] = socket.socket(socket.AF_UNIX)
            self._listeners[name].bind(str(folder / name))
            self._listeners[name].listen()
        self.channel = ControlChannel(folder / "control", folder / "events", Deadline.after(5))
        self.control, _ = self._listeners["control"].accept()
        self.events, _ = self._listeners["events"].accept()
        self.control.settimeout(20)

    def answer(self, content: bytes) -> None:
        """Send this once a request has come."""
        self.control.recv(1 << 16)
        self.control.sendall(content)

    def close(self) -> None:
        self.channel.close()
        for end_of_it in (self.control, self.events, *self._listeners.values()):
            end_of_it.close()


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    made = Peer(tmp_path)
    yield made
    made.close()


def test_an_answer_may_come_in_pieces(peer: Peer) -> None:
    def pieces() -> None:
        peer.control.recv(1 << 16)
        for at in range(len(content)):
            peer.control.sendall(content[at : at + 1])

    content = b"1 5 4\nab\ncrest"
    thread = threading.Thread(target=pieces)
    thread.start()
    assert peer.channel.execute("x", soon()) == (5, "ab\nc")
    thread.join()


def test_half_an_answer_is_gone_on_with_next_time(peer: Peer) -> None:
    threading.Thread(target=peer.answer, args=(b"1 0 10\n1 0 3\n",)).start()
    with pytest.raises(GuestError):
        peer.channel.execute("x", Deadline.after(0.3))
    threading.Thread(target=peer.answer, args=(b"9 9\n2 7 2\nok",)).start()
    assert peer.channel.execute("y", soon()) == (7, "ok")


@pytest.mark.parametrize("line", [b"login: ", b"1 0 x", b"1 -1 0", b"1", b"", b"1 2 3 4", b"\xff\xfe"])
def test_something_else_than_an_answer(peer: Peer, line: bytes) -> None:
    thread = threading.Thread(target=peer.answer, args=(line + b"\n",))
    thread.start()
    with pytest.raises(GuestError) as caught:
        peer.channel.execute("x", soon())
    thread.join()
    assert caught.value.brief == "the agent in the guest answers with something else"
    assert caught.value.details == repr(line)


@pytest.mark.parametrize("content", [None, b"", b"1 0 100\nhalf"], ids=["before", "after the request", "in the answer"])
def test_a_machine_that_is_gone(peer: Peer, content: bytes | None) -> None:
    def go() -> None:
        if content is not None:
            peer.answer(content)
        peer.control.close()

    thread = threading.Thread(target=go)
    thread.start()
    if content is None:
        thread.join()
    began = time.monotonic()
    with pytest.raises(BackendError, match="the machine is gone: its control channel") as caught:
        peer.channel.execute("x", Deadline.after(30))
    thread.join()
    assert caught.value.blame is Blame.LAB
    assert time.monotonic() - began < 10


def test_a_guest_that_does_not_read_gets_no_half_command(peer: Peer) -> None:
    """It finds the end of the file before the end of the line, and drops what it has."""
    with pytest.raises(GuestError, match="does not take commands any more"):
        peer.channel.execute("x" * 2_000_000, Deadline.after(0.3))
    received = b""
    while chunk := peer.control.recv(1 << 16):
        received += chunk
    assert b"\n" not in received
    assert len(received) > 1000
    with pytest.raises(BackendError):
        peer.channel.execute("y", soon())


def test_a_short_deadline_before_does_not_hurt_a_long_command(peer: Peer) -> None:
    with pytest.raises(GuestError):
        peer.channel.execute("x", Deadline.after(0))
    got = bytearray()

    def slowly() -> None:
        while got.count(b"\n") < 2:
            time.sleep(0.001)
            got.extend(peer.control.recv(50_000))
        peer.control.sendall(b"2 0 0\n")

    thread = threading.Thread(target=slowly)
    thread.start()
    assert peer.channel.execute("y" * 1_000_000, soon()) == (0, "")
    thread.join()
    assert got.endswith(b"y\n")


def test_events_come_one_by_one(peer: Peer) -> None:
    peer.events.sendall(b"hel")
    assert peer.channel.next_event(Deadline.after(0.05)) is None
    peer.events.sendall(b"lo\r\nready 1-2\nrea")
    assert peer.channel.next_event(soon()) == BootEvent("hello")
    assert peer.channel.next_event(soon()) == BootEvent("ready", "1-2")
    assert peer.channel.next_event(Deadline.after(0)) is None
    peer.events.close()
    with pytest.raises(BackendError, match="the machine is gone"):
        peer.channel.next_event(Deadline.after(30))


def test_threads_take_turns(channel: ControlChannel) -> None:
    seen: dict[int, tuple[int, str]] = {}

    def ask(number: int) -> None:
        seen[number] = channel.execute(f"sleep 0.05; echo {number}", Deadline.after(30))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {number: (0, f"{number}\n") for number in range(8)}


@pytest.mark.parametrize("missing", ["control", "events"])
def test_nobody_listens(tmp_path: Path, missing: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / ("events" if missing == "control" else "control")))
    listener.listen()
    try:
        with pytest.raises(BackendError, match=f"QEMU does not answer on {tmp_path}/{missing}"):
            ControlChannel(tmp_path / "control", tmp_path / "events", Deadline.after(1))
    finally:
        listener.close()


def test_the_agent_of_another_port_is_left_alone(guest: Callable[[str], Guest]) -> None:
    """A name that only begins alike is not taken."""
    made = guest("dash")
    (made.folder / "sys" / "vport0p1" / "name").write_text("pytest-bootc.events.other\n")
    (made.folder / "dev" / "vport0p1").write_text("")
    channel, process = made.channel(), made.run(AGENT)
    try:
        wait_until(lambda: channel.next_event(Deadline.after(0.1)), soon(), what="the agent")
        assert (made.folder / "dev" / "vport0p1").read_text() == ""
    finally:
        channel.close()
        end(process)
