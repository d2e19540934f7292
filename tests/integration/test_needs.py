"""What the words of the marker ``needs`` find in a real guest: the image `workstation`."""

from __future__ import annotations

import pytest

from pytest_bootc import needs
from pytest_bootc.deadline import Deadline
from pytest_bootc.machine.qemu import QemuMachine
from pytest_bootc.ssh import SSHSession

pytestmark = [pytest.mark.integration, pytest.mark.qemu, pytest.mark.slow]

_LOAD = "podman load --input /usr/share/test-images/busybox.tar"
_MET = (
    "program:podman",
    "unit:dbus.service",
    "user-unit:dbus.socket",
    "file:/etc/os-release",
    "package:bash",
    "flatpak:org.example.Hello",
    "app:org.example.Hello",
    "app:org.example.Hello.desktop",
    "setting:org.gnome.desktop.interface",
    "container-image:localhost/busybox:latest",
    "command:grep -q ^tester: /etc/passwd",
    "user",
)
_UNMET = (
    "program:no-such-program",
    "unit:no-such.service",
    "user-unit:no-such.service",
    "file:/no/such/file",
    "package:no-such-package",
    "flatpak:org.example.Other",
    "app:org.example.Other",
    "extension:other@example.org",
    "setting:org.example.other",
    "container-image:localhost/other:latest",
    "ujust:no-such-recipe",
    "brew",
    "selinux",
    "deployment",
    "wireless",
)


def answers(session: SSHSession, *words: str) -> dict[str, bool]:
    found = {}
    for some in (words[n : n + needs.MOST] for n in range(0, len(words), needs.MOST)):
        status = session.execute(needs.question(some), timeout=120).status
        found |= dict(zip(some, needs.answers(status, len(some)), strict=True))
    return found


def test_words_in_a_guest(workstation_vm: QemuMachine) -> None:
    limit = Deadline.after(300)
    with SSHSession.connect(workstation_vm.ssh_endpoint(limit), limit, keepalive=60) as session:
        session.succeed(_LOAD, timeout=200)
        own = "/home/tester/.local/share"
        session.succeed(f"mkdir -p {own}/applications {own}/gnome-shell/extensions/mine@example.org", timeout=60)
        session.succeed(f"touch {own}/applications/org.example.Mine.desktop", timeout=60)
        wanted = (*_MET, "app:org.example.Mine", "extension:mine@example.org")
        assert answers(session, *wanted, *_UNMET) == {**dict.fromkeys(wanted, True), **dict.fromkeys(_UNMET, False)}
