from __future__ import annotations

from pathlib import Path

import pytest

from pytest_bootc.errors import ConfigError
from pytest_bootc.machine.remote import RemoteBackend, parse_host
from pytest_bootc.model import RunConfig, SSHEndpoint


@pytest.mark.parametrize(
    ("text", "host", "port", "user"),
    [
        ("build1", "build1", 22, "root"),
        ("core@build1.example", "build1.example", 22, "core"),
        ("10.0.0.5:2222", "10.0.0.5", 2222, "root"),
        ("core@10.0.0.5:2222", "10.0.0.5", 2222, "core"),
        ("[::1]", "::1", 22, "root"),
        ("core@[2001:db8::5]:2222", "2001:db8::5", 2222, "core"),
        ("[fe80::1%eth0]:22", "fe80::1%eth0", 22, "root"),
    ],
)
def test_a_host(text, host, port, user):
    assert parse_host(text) == SSHEndpoint(host, port, user, private_key=None, host_key=None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@host",
        "user@",
        "a b",
        "host:",
        "host:ssh",
        ":22",
        "2001:db8::5",
        "[2001:db8::5",
        "[10.0.0.5]",
        "[::1]22",
        "ssh://host",
        "-oProxyCommand=x",
        "u@v@host",
        "h\u00f6st",
        "host\n",
    ],
)
def test_what_is_no_host_is_a_usage_error(text):
    with pytest.raises(ConfigError, match="is no host") as caught:
        parse_host(text)

    assert "in brackets" in caught.value.resolution


@pytest.mark.parametrize("port", ["0", "65536", "99999999"])
def test_a_port_must_be_one(port):
    with pytest.raises(ConfigError, match="has no port of TCP"):
        parse_host(f"host:{port}")


def test_the_backend_needs_a_host():
    with pytest.raises(ConfigError, match="the backend remote needs a host"):
        RemoteBackend(RunConfig(backend="remote"), Path("unused"))
