"""The words of the marker ``needs`` as lines of shell, run by this host's own sh where its answer can be known."""

from __future__ import annotations

import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_bootc import needs, options
from pytest_bootc.errors import ConfigError
from pytest_bootc.features.tags import need_in

KINDS = (
    "program", "unit", "user-unit", "file", "package", "flatpak", "app", "extension", "container-image", "ujust",
    "setting",
)  # fmt: skip
FACTS = ("brew", "user", "selinux", "deployment", "tpm", "wireless")


def status(line: str, **options: object) -> int:
    return subprocess.run(["sh", "-c", line], capture_output=True, check=False, **options).returncode


@pytest.mark.parametrize("word", [*(f"{kind}:name" for kind in KINDS), "ujust:a=b", "command:true", *FACTS])
def test_each_word_is_shell_and_is_told(word: str) -> None:
    assert status(f"set -n\n{{ {needs.probe(word)}; }}") == 0
    assert f" {word.partition(':')[0]}" in options.NEEDS_MARKER.replace("(", " ")


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_never_shell(kind: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    for name in (f"$(touch {made})", f"'; touch {made}; '", f"a b; touch {made}"):
        status(needs.question([f"{kind}:{name}"]))
    assert not made.exists()


@pytest.mark.parametrize(
    ("word", "met"),
    [
        ("program:sh", True),
        ("program:no such program", False),
        ("file:/dev/null", True),
        ("file:/no/such/file", False),
        ("command:test 1 = 1", True),
        ("command:exit 3", False),
        ("unit:no-such.service", False),
        ("user-unit:no-such.service", False),
        ("flatpak:org.example.NoSuch", False),
        ("app:org.example.NoSuch", False),
        ("extension:no-such@example.org", False),
        ("container-image:example.org/no-such:tag", False),
        ("ujust:no-such", False),
        ("ujust:no-such=text", False),
        ("setting:org.example.no-such", False),
        ("package:no-such-package", False),
        pytest.param(
            "package:libc6", True, marks=pytest.mark.skipif(not shutil.which("dpkg"), reason="this host has no dpkg")
        ),
        ("user", any(1000 <= each.pw_uid <= 60000 for each in pwd.getpwall())),
        ("tpm", Path("/dev/tpm0").exists()),
        ("selinux", Path("/sys/fs/selinux/enforce").exists()),
        ("brew", Path("/home/linuxbrew/.linuxbrew/bin/brew").exists()),
    ],
)
def test_answers(word: str, met: bool) -> None:  # noqa: FBT001  # a parameter of the test
    assert needs.answers(status(needs.question([word])), 1) == [met]


@pytest.fixture
def ujust(tmp_path: Path) -> dict[str, str]:
    """A PATH on which there is a ujust that knows one recipe."""
    program = tmp_path / "ujust"
    program.write_text('#!/bin/sh\n[ "$1 $2" = "--show toggle-updates" ] && echo "ACTION_VALUE=$1"\n')
    program.chmod(0o755)
    return {"PATH": f"{tmp_path}:/usr/bin:/bin"}


def test_recipes(ujust: dict[str, str]) -> None:
    words = ["ujust:toggle-updates", "ujust:toggle-updates=ACTION_VALUE", "ujust:toggle-updates=other", "ujust:other"]
    assert needs.answers(status(needs.question(words), env=ujust), len(words)) == [True, True, False, False]


def test_several_words_are_one_question() -> None:
    words = ["file:/", "command:exit 9", "program:sh", "command:false", "file:/dev", "file:/no", "command:true"]
    assert len(words) == needs.MOST
    expected = [True, False, True, False, True, False, True]
    assert needs.answers(status(needs.question(words)), len(words)) == expected


@pytest.mark.parametrize("word", ["programm:sh", "program", "program:", ":sh", "", "lvie", "tpm:x", "network:x"])
def test_words_that_there_are_not(word: str) -> None:
    with pytest.raises(ConfigError, match="does not know"):
        needs.probe(word)


@pytest.mark.parametrize("word", needs.CIRCUMSTANCES)
def test_what_the_guest_is_not_asked(word: str) -> None:
    assert needs.probe(word) == ""
    assert word in options.NEEDS_MARKER


@pytest.mark.parametrize(
    ("tag", "word"),
    [
        ("network", "network"),
        ("program.podman", "program:podman"),
        ("program:podman", "program:podman"),
        ("unit.a.b.service", "unit:a.b.service"),
        ("unit:a.b:c", "unit:a.b:c"),
        ("file./etc/a.b", "file:/etc/a.b"),
        ("user-unit.x@y.service", "user-unit:x@y.service"),
        ("program.two%20words", "program:two words"),
        ("container-image:localhost:5000/a:b", "container-image:localhost:5000/a:b"),
        ("program.", "program."),
    ],
)
def test_tags(tag: str, word: str) -> None:
    assert need_in(tag) == word
