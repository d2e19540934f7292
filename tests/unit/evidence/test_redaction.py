from __future__ import annotations

import pytest

from pytest_bootc.evidence.redaction import redact, redact_arguments

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password=hunter2 next", "password=[hidden] next"),
        ("DB_PASSWORD=hunter2;x", "DB_PASSWORD=[hidden];x"),
        ("Password: hunter2", "Password: [hidden]"),
        ("token = hunter2", "token = [hidden]"),
        ('{"access_token": "hunter2 hunter2", "n": 1}', '{"access_token": [hidden], "n": 1}'),
        ("passphrase='hunter2 hunter2' x", "passphrase=[hidden] x"),
        ("GET /?api_key=hunter2&page=1", "GET /?api_key=[hidden]&page=1"),
        ("login --password hunter2 --user me", "login --password [hidden] --user me"),
        ("podman login --registry-token hunter2", "podman login --registry-token [hidden]"),
        ("pull https://me:hunter2@host/x", "pull https://[hidden]@host/x"),
        ("clone https://hunter2hunter2hunter2@host/x", "clone https://[hidden]@host/x"),
        ("Authorization: Bearer hunter2", "Authorization: Bearer [hidden]"),
        ("authorization: Basic aHVudGVyMg==", "authorization: Basic [hidden]"),
        ("key ghp_hunter2hunter2hunter2 there", "key [hidden] there"),
        ("id AKIAIOSFODNN7EXAMPLE.", "id [hidden]."),
        (f"before\n{KEY}after", f"before\n{KEY[:35]}[hidden]{KEY[-34:]}after"),
        (KEY[:60], "-----BEGIN OPENSSH PRIVATE KEY-----[hidden]"),
    ],
)  # fmt: skip
def test_secrets_are_hidden(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "[    5.1] vm systemd[1]: Started systemd-ask-password-wall.path - Forward Password Requests to Wall.",
        "[    5.1] vm systemd[1]: systemd-tty-ask-password-agent.service: Deactivated successfully.",
        "[    5.1] vm sshd[1]: Failed password for root from 10.0.2.2 port 5 ssh2",
        "cannot lock /etc/passwd: try again later",
        "ssh://root@host/ and git@host:path and https://host/x@y",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0 root@host",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        "tool --token --verbose",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_the_argument_behind_an_option_is_hidden_whole() -> None:
    arguments = ["tool", "--password", "two words", "--token=abc def", "DB_SECRET=a b", "--secret", "--user", "me", "x"]
    assert redact_arguments(arguments) == [
        "tool", "--password", "[hidden]", "--token=[hidden]", "DB_SECRET=[hidden]", "--secret", "--user", "me", "x",
    ]  # fmt: skip
