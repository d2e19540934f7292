"""The words of the marker ``needs``: what each asks a guest, as a line of POSIX sh that exits with 0 where it is met.

Nothing is started for a probe, and no session is needed.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence

from pytest_bootc.errors import ConfigError

#: What is known of the run and its disk, and not of what the image brings.
CIRCUMSTANCES = ("network", "live", "installed_disk")

_HOMES = """$(awk -F: '$3 >= 1000 && $3 <= 60000 {print $6}' /etc/passwd)"""
_USER_UNITS = ("/etc/systemd/user", "/run/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user")
_DATA = ("/usr/share", "/usr/local/share", "/var/lib/flatpak/exports/share")


def _exists(*paths: str) -> str:
    tests = " || ".join(f"[ -e {path} ]" for path in paths)
    return f"{{ {tests}; }}"


def _app(name: str) -> str:
    file = shlex.quote(f"applications/{name.removesuffix('.desktop')}.desktop")
    own = f"for home in {_HOMES}; do {_exists(f'$home/.local/share/{file}')} && exit; done; false"
    return f"{_exists(*(f'{folder}/{file}' for folder in _DATA))} || ( {own} )"


def _extension(uuid: str) -> str:
    folder = shlex.quote(f"gnome-shell/extensions/{uuid}")
    own = f"for home in {_HOMES}; do {_exists(f'$home/.local/share/{folder}')} && exit; done; false"
    return f"{_exists(*(f'{data}/{folder}' for data in _DATA))} || ( {own} )"


def _package(name: str) -> str:
    word = shlex.quote(name)
    installed = "grep -q ' installed$'"
    return f"rpm -q -- {word} || {{ dpkg-query --show --showformat '${{Status}}\\n' -- {word} | {installed}; }}"


def _recipe(name: str) -> str:
    recipe, equals, text = name.partition("=")
    shown = f"ujust --show {shlex.quote(recipe)}"
    return f"{shown} | grep -qF -e {shlex.quote(text)}" if equals else shown


_KINDS: Mapping[str, Callable[[str], str]] = {
    "program": lambda name: f"command -v {shlex.quote(name)}",
    "unit": lambda name: f"systemctl cat {shlex.quote(name)}",
    "user-unit": lambda name: _exists(*(f"{folder}/{shlex.quote(name)}" for folder in _USER_UNITS)),
    "file": lambda path: f"test -e {shlex.quote(path)}",
    "package": _package,
    "flatpak": lambda name: f"flatpak info {shlex.quote(name)}",
    "app": _app,
    "extension": _extension,
    "container-image": lambda name: f"podman image exists {shlex.quote(name)}",
    "ujust": _recipe,
    "setting": lambda schema: f"gsettings list-keys {shlex.quote(schema)}",
    "command": lambda line: f"( {line} )",
}
_FACTS: Mapping[str, str] = {
    "brew": "test -x /home/linuxbrew/.linuxbrew/bin/brew",
    "user": "awk -F: '$3 >= 1000 && $3 <= 60000 {found = 1} END {exit !found}' /etc/passwd",
    "selinux": "test -e /sys/fs/selinux/enforce",
    "deployment": """[ -e /run/ostree-booted ] || bootc status --json | grep -q '"type": *"'""",
    "tpm": "test -e /dev/tpm0",
    "wayland": "ls /run/user/[1-9]???*/wayland-[0-9]",
    "wireless": "ls -d /sys/class/net/*/phy80211 /sys/class/net/*/wireless 2>/dev/null | grep -q .",
}


def probe(word: str) -> str:
    """The line that finds out; empty for what is known without asking the guest.

    :raises ConfigError: there is no such word.
    """
    kind, colon, name = word.partition(":")
    if word in CIRCUMSTANCES:
        return ""
    if word in _FACTS:
        return _FACTS[word]
    if kind in _KINDS and colon and name:
        return _KINDS[kind](name)
    raise ConfigError(
        f"the marker needs does not know {word!r}",
        resolution=f"write one of {', '.join((*(f'{kind}:NAME' for kind in _KINDS), *_FACTS, *CIRCUMSTANCES))}",
    )


#: How many words one question can have: each is a bit of an exit status.
MOST = 7


def question(words: Sequence[str]) -> str:
    """The line of shell that finds out about several words at once; :func:`answers` reads its exit status."""
    probes = (f"{{ {probe(word)}; }} >/dev/null 2>&1 || unmet=$((unmet + {1 << n}))" for n, word in enumerate(words))
    return f"unmet=0; {'; '.join(probes)}; (exit $unmet)"


def answers(status: int, count: int) -> list[bool]:
    """Whether each of so many words is met, by the exit status of a question."""
    return [not status >> n & 1 for n in range(count)]
