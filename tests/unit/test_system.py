from __future__ import annotations

import hashlib
import subprocess

import pytest

from pytest_bootc.errors import GuestError
from pytest_bootc.system import (
    Mount,
    Package,
    hash_command,
    parse_capabilities,
    parse_facts,
    parse_hashes,
    parse_listening,
    parse_mounts,
    parse_os_release,
    parse_package,
    sections,
)

FACTS = """\
Welcome! This is printed by somebody's ~/.bashrc.
\x1eos_release
NAME="Bluefin"
ID=bluefin
\x1ekernel_release
6.17.8-300.fc43.x86_64
\x1earchitecture
x86_64
\x1ehostname
bluefin
\x1eboot_id
5c1b0e0a-4a7b-4c0f-9a0d-9c5b2f6f7e11
\x1euptime
93.20 311.07
\x1ekernel_arguments
root=UUID=1 rw quiet
\x1etaint
0
\x1eselinux
1
\x1euser
0
\x1epackage_managers
rpm
flatpak
"""
MOUNTS = r"""22 1 253:0 / / ro,relatime shared:1 - erofs /dev/vda ro,user_xattr,acl
23 22 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 master:2 - proc proc rw
41 22 0:38 /upper /etc rw,relatime - overlay overlay rw,lowerdir=/a:/b,upperdir=/c\054d
52 22 253:16 / /var/a\040b rw,relatime - ext4 /dev/vdb ro
"""
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000   102        0 17 1 0 100 0 0 10 0
   1: 0F02000A:0016 0202000A:9B3E 01 00000000:00000000 02:000A 00000000     0        0 20 4 0 20 4 29 10 -1
  sl  local_address                         remote_address                        st tx_queue rx_queue tr
   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0
"""


def test_facts():
    facts = parse_facts(FACTS)

    assert facts.os_release == {"NAME": "Bluefin", "ID": "bluefin"}
    assert (facts.kernel_release, facts.architecture) == ("6.17.8-300.fc43.x86_64", "x86_64")
    assert (facts.uptime, facts.taint, facts.selinux, facts.user) == (93.2, 0, "enforcing", 0)
    assert facts.package_managers == ("rpm", "flatpak")


def test_a_kernel_without_selinux():
    assert parse_facts(FACTS.replace("selinux\n1\n", "selinux\n")).selinux == "off"


@pytest.mark.parametrize("text", ["", FACTS.replace("\x1etaint\n0\n", ""), FACTS.replace("93.20 311.07", "")])
def test_facts_that_miss_something_are_an_error(text):
    with pytest.raises(GuestError, match="facts cannot be read"):
        parse_facts(text)


def test_os_release_is_unquoted_as_a_shell_does():
    text = r"""
# a comment = none
NAME="Fedora Linux"
PRETTY_NAME='Its "43" \$'
VERSION_ID=43
VARIANT="a \"b\" \$c \\ \d"
EMPTY=
"""
    assert parse_os_release(text) == {
        "NAME": "Fedora Linux",
        "PRETTY_NAME": 'Its "43" \\$',
        "VERSION_ID": "43",
        "VARIANT": 'a "b" $c \\ \\d',
        "EMPTY": "",
    }


def test_mounts():
    root, proc, etc, var = parse_mounts(MOUNTS)

    assert root == Mount(
        target="/",
        source="/dev/vda",
        type="erofs",
        options=("ro", "relatime"),
        device="253:0",
        super_options=("ro", "user_xattr", "acl"),
    )
    assert (proc.type, proc.read_only) == ("proc", False)
    assert (etc.root, etc.target) == ("/upper", "/etc")
    assert (var.target, var.read_only) == ("/var/a b", True)


def test_something_else_is_no_mount():
    with pytest.raises(GuestError, match="mountinfo cannot be read"):
        parse_mounts("proc on /proc type proc (rw)\n")


@pytest.mark.parametrize(
    ("text", "package"),
    [
        ("\x1erpm\n2.12-1.fc43", Package("rpm", "x", "2.12-1.fc43")),
        ("\x1edpkg\ninstalled 2.12-3\x1eflatpak\n", Package("dpkg", "x", "2.12-3")),
        ("\x1edpkg\nconfig-files 2.12-3", None),
        ("\x1eflatpak\norg.x.Y\t1\nx\t49.1\n", Package("flatpak", "x", "49.1")),
        ("\x1eflatpak\nx\t\n", Package("flatpak", "x", "")),
        ("\x1eflatpak\norg.x\t1\n", None),
        ("", None),
    ],
)
def test_a_package_is_found_by_whichever_manager_has_it(text, package):
    assert parse_package(text, "x") == package


def test_ports_that_are_listened_on():
    assert parse_listening(TCP) == {53, 22}


def test_hashes_of_names_with_anything_in_them(tmp_path):
    names = ["plain", "with space", "back\\slash", "new\nline", "-n", "grüße"]
    for name in names:
        (tmp_path / name).write_text(name)
    stdin = b"".join(f"{tmp_path}/{name}\0".encode() for name in names)
    printed = subprocess.check_output(hash_command(), input=stdin).decode()

    assert parse_hashes(printed) == {f"{tmp_path}/{name}": hashlib.sha256(name.encode()).hexdigest() for name in names}


def test_something_else_is_no_hash():
    with pytest.raises(GuestError, match="sha256sum printed"):
        parse_hashes("sha256sum: not found\n")


@pytest.mark.parametrize(
    ("text", "capabilities"),
    [
        ("\x1egetcap\n/usr/bin/ping cap_net_raw=ep\n", "cap_net_raw=ep"),
        ("\x1egetcap\n/usr/bin/ping = cap_net_raw+ep\n", "cap_net_raw=ep"),
        ("\x1egetcap\n", "none"),
        (
            "\x1egetfattr\n# file: /usr/bin/ping\nsecurity.capability=0x0100000200200000000000000000000000000000\n\n",
            "cap_net_raw=ep",
        ),
        ("\x1egetfattr\n", "none"),
    ],
)
def test_capabilities_by_either_program(text, capabilities):
    assert str(parse_capabilities(text, "/usr/bin/ping")) == capabilities


def test_sections_leave_out_what_came_before_them():
    assert sections("noise\n\x1ea\n1\n2\n\x1eb\n\x1ec\n") == {"a": "1\n2", "b": "", "c": ""}
