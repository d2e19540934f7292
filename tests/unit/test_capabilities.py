from __future__ import annotations

import pytest

from pytest_bootc.capabilities import FileCapabilities
from pytest_bootc.errors import GuestError

# As getfattr prints them, of files whose capabilities setcap(8) set.
PING = bytes.fromhex("0100000200200000000000000000000000000000")
CLOCKDIFF = bytes.fromhex("0000000200200000002000000000000000000000")
BPF = bytes.fromhex("0100000200000000000000008000000000000000")
OF_A_CONTAINER = bytes.fromhex("0100000300200000000000000000000000000000e8030000")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (PING, "cap_net_raw=ep"),
        (CLOCKDIFF, "cap_net_raw=ip"),
        (BPF, "cap_bpf=ep"),
        (bytes.fromhex("010000010020000000000000"), "cap_net_raw=ep"),
        (
            bytes.fromhex("0100000200340000000000000000000000000000"),
            "cap_net_bind_service,cap_net_admin,cap_net_raw=ep",
        ),
    ],
)
def test_the_attribute_and_getcap_mean_the_same(value, text):
    assert FileCapabilities.from_xattr(value) == FileCapabilities.from_text(text)


def test_what_belongs_to_a_name_space_says_so():
    capabilities = FileCapabilities.from_xattr(OF_A_CONTAINER)

    assert (capabilities.rootid, capabilities.permitted) == (1000, frozenset({"cap_net_raw"}))


@pytest.mark.parametrize(
    ("text", "permitted", "inheritable", "effective"),
    [
        ("cap_net_raw=ep", {"cap_net_raw"}, set(), True),
        ("= cap_net_raw+ep", {"cap_net_raw"}, set(), True),  # libcap before 2.41
        ("cap_a,cap_b=p cap_b+i", {"cap_a", "cap_b"}, {"cap_b"}, False),
        ("cap_a=eip cap_a-i", {"cap_a"}, set(), True),
        ("", set(), set(), False),
    ],
)
def test_the_text_of_getcap(text, permitted, inheritable, effective):
    assert FileCapabilities.from_text(text) == FileCapabilities(frozenset(permitted), frozenset(inheritable), effective)


def test_all_of_them_but_one():
    capabilities = FileCapabilities.from_text("=ep cap_sys_admin-ep")

    assert "cap_sys_admin" not in capabilities.permitted
    assert len(capabilities.permitted) == 40


def test_a_bit_without_a_name_is_a_number():
    assert FileCapabilities.from_xattr(bytes.fromhex("0100000200000000000000000000008000000000")).permitted == {"63"}


@pytest.mark.parametrize("value", [b"", PING[:-1], PING + b"\0", b"\1\0\0\4" + PING[4:]])
def test_an_attribute_of_another_form_is_an_error(value):
    with pytest.raises(GuestError, match="unknown form"):
        FileCapabilities.from_xattr(value)


def test_another_text_is_an_error():
    with pytest.raises(GuestError, match="cannot be read"):
        FileCapabilities.from_text("Failed to get capabilities of file")


@pytest.mark.parametrize("text", ["cap_net_raw=ep", "cap_bpf,cap_perfmon=eip", "none"])
def test_it_is_printed_as_getcap_does(text):
    assert str(FileCapabilities.from_text("" if text == "none" else text)) == text
