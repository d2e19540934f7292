"""A login that goes on in another process, on the connections of OpenSSH's own server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import SSHConnectError
from pytest_bootc.model import HeldLogin
from pytest_bootc.ssh import SSHSession
from pytest_bootc.ssh.transport import GuestTransport

pytestmark = pytest.mark.integration

MIB = 1 << 20
# Who serves the connection: another login would have another one.
SERVER = "echo $PPID"
ANOTHER = """
import json, sys
from pytest_bootc.model import HeldLogin, SSHEndpoint
from pytest_bootc.ssh import SSHSession

endpoint, descriptor, state = json.load(sys.stdin)
session = SSHSession.resume(SSHEndpoint(**endpoint), HeldLogin(descriptor, state), keepalive=5)
print(session.succeed("echo $PPID; head -c 3000000 /dev/zero | wc -c"), end="")
held = session.hand_over()
print(held.state)
"""


@pytest.fixture
def session(sshd) -> Iterator[SSHSession]:
    with SSHSession.connect(sshd.endpoint, Deadline.after(20)) as session:
        yield session


def resumed(session: SSHSession, held: HeldLogin | None) -> SSHSession | None:
    assert held is not None
    return SSHSession.resume(session.endpoint, held, keepalive=2)


def test_a_login_goes_on_again_and_again(session: SSHSession, tmp_path: Path) -> None:
    """Whatever was done on it before: large streams both ways, files, commands that fail."""
    server = session.succeed(SERVER)
    content = os.urandom(MIB)
    for number in range(5):
        following = resumed(session, session.hand_over())
        assert following is not None
        session = following
        assert session.succeed(SERVER) == server
        session.write_file(str(tmp_path / "file"), content)
        assert session.execute("cat", stdin=content, timeout=30).stdout_bytes == content
        assert session.read_file(str(tmp_path / "file")) == content
        assert session.execute("exit 3").status == 3, number
    session.close()


def test_a_login_goes_on_in_another_process(session: SSHSession) -> None:
    server = session.succeed(SERVER)
    held = session.hand_over()
    assert held is not None
    told = json.dumps([{**asdict(session.endpoint)}, held.descriptor, held.state], default=str)
    ran = subprocess.run(
        [sys.executable, "-c", ANOTHER],
        input=told, text=True, check=True, capture_output=True, pass_fds=[held.descriptor], timeout=60,
    )  # fmt: skip
    there, size, state = ran.stdout.splitlines()
    assert f"{there}\n" == server
    assert size == "3000000"

    back = resumed(session, replace(held, state=state))
    assert back is not None
    assert back.succeed(SERVER) == server
    back.close()


def test_the_session_that_handed_it_over_has_none(session: SSHSession) -> None:
    held = session.hand_over()
    assert held is not None
    with pytest.raises(SSHConnectError, match="there is no connection"):
        session.succeed("true")
    assert session.hand_over() is None
    os.close(held.descriptor)


def test_new_keys_are_agreed_on_after_it(make_sshd) -> None:
    """The server asks for them after a megabyte (RekeyLimit, sshd_config(5)); what follows is of these."""
    server = make_sshd("RekeyLimit 1M")
    with SSHSession.connect(server.endpoint, Deadline.after(20)) as session:
        who = session.succeed(SERVER)
        for _ in range(2):
            following = resumed(session, session.hand_over())
            assert following is not None
            session.take_over(following)
            before = inbound_key(session)
            assert session.execute("head -c 5000000 /dev/zero", timeout=30).stdout_bytes == bytes(5_000_000)
            assert session.succeed(SERVER) == who
            assert inbound_key(session) != before


def inbound_key(session: SSHSession) -> bytes:
    assert session._open is not None
    return session._open[0]._transport.packetizer.inbound.key


def test_a_login_that_was_used_meanwhile_is_given_up(session: SSHSession) -> None:
    held = session.hand_over()
    assert held is not None
    again = replace(held, descriptor=os.dup(held.descriptor))
    following = resumed(session, held)
    assert following is not None
    following.succeed("true")

    assert resumed(session, again) is None
    following.close()


def test_a_login_whose_server_is_gone_is_given_up(make_sshd) -> None:
    server = make_sshd("")
    session = SSHSession.connect(server.endpoint, Deadline.after(20))
    held = session.hand_over()
    server.stop()
    assert resumed(session, held) is None


def test_a_state_of_another_version_is_given_up(session: SSHSession) -> None:
    held = session.hand_over()
    assert held is not None
    assert resumed(session, replace(held, state='{"schema": 0}')) is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(held.descriptor)


def test_a_login_with_another_cipher_stays_here(make_sshd) -> None:
    server = make_sshd("Ciphers aes256-ctr")
    session = SSHSession.connect(server.endpoint, Deadline.after(20))
    assert session.succeed("echo here") == "here\n"
    assert session.hand_over() is None


def test_nothing_is_handed_over_that_was_lost(make_sshd) -> None:
    server = make_sshd("")
    session = SSHSession.connect(server.endpoint, Deadline.after(20))
    server.stop()
    assert session.hand_over() is None


def test_a_descriptor_of_ours_is_not_left_open(session: SSHSession) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    held = session.hand_over()
    following = resumed(session, held)
    assert following is not None
    following.close()
    assert len(set(Path("/proc/self/fd").iterdir()) - before) == 0


def test_paramiko_is_as_we_know_it() -> None:
    """What is private to it and used by us; another version may have other names."""
    for name in ("_get_engine", "_send_kex_init", "_expect_packet", "_check_banner", "_ENCRYPT", "_DECRYPT"):
        assert hasattr(GuestTransport, name), name
