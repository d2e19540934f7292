"""The SSH session against OpenSSH's own server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_bootc.deadline import Deadline
from pytest_bootc.ssh import SSHSession

pytestmark = pytest.mark.integration


@pytest.fixture
def session(sshd) -> Iterator[SSHSession]:
    with SSHSession.connect(sshd.endpoint, Deadline.after(20)) as session:
        yield session


def test_a_command_leaves_its_status_and_both_streams(session):
    result = session.execute("echo out; echo err >&2; exit 3")

    assert (result.status, result.stdout, result.stderr, result.signal) == (3, "out\n", "err\n", None)
