"""What is installed with Flatpak is whole: its metadata can be read, and the runtimes that it stands on are there.

Source: flatpak-metadata(5), flatpak-list(1).
"""

from __future__ import annotations

import configparser

import pytest

from pytest_bootc.guest import Guest

_SEPARATOR = "\x1e"
# Every application's metadata after a line with its id. Flatpak itself does not list those whose metadata is bad.
_READ_ALL = f"""
for current in /var/lib/flatpak/app/*/current; do
    [ -L "$current" ] || continue
    id=${{current%/current}}
    printf '{_SEPARATOR}%s\\n' "${{id##*/}}"
    cat "$current/active/metadata" 2>&1 || echo "cat ended with $?"
done
"""

pytestmark = pytest.mark.needs("program:flatpak")


def test_the_metadata_of_each_application_can_be_read(guest: Guest) -> None:
    """Each application's metadata is a key file that names the application itself, its runtime and its command.

    Without it an application is not started, or with other rights than it was made for.
    """
    told = guest.succeed(["sh", "-c", _READ_ALL]).split(_SEPARATOR)[1:]
    if not told:
        pytest.skip("not judged: no application is installed for everybody")
    wrong = {id: wrongs for id, _, text in (each.partition("\n") for each in told) if (wrongs := _wrongs_of(id, text))}
    shown = "\n".join(f"  {id}: {wrongs}" for id, wrongs in wrong.items())
    assert not wrong, f"{len(wrong)} of {len(told)} applications have bad metadata:\n{shown}"


def test_each_application_has_its_runtime(guest: Guest) -> None:
    """The runtime of each application is installed, in the version that the application asks for."""
    rows = [line.split("\t") for line in _listed(guest, "--app", "--columns=application,runtime")]
    if not rows:
        pytest.skip("not judged: no application is installed for everybody")
    there = set(_listed(guest, "--runtime", "--columns=ref"))
    missing = [f"{row[0]} needs {row[-1]}" for row in rows if row[-1] not in there]
    assert not missing, "runtimes are missing:\n" + "\n".join(f"  {each}" for each in missing)


def _listed(guest: Guest, *options: str) -> list[str]:
    text = guest.succeed(["flatpak", "list", "--system", *options])
    return [line.strip() for line in text.splitlines() if line.strip()]


def _wrongs_of(name: str, text: str) -> str:
    """What is wrong with an application's metadata; nothing if it is good."""
    parser = configparser.RawConfigParser(strict=False, comment_prefixes=("#",), delimiters=("=",))
    try:
        parser.read_string(text)
    except configparser.Error as error:
        return f"it is no key file: {error}".replace("\n", " ")
    said = parser["Application"] if parser.has_section("Application") else {}
    if said.get("name") != name:
        return f"its name is {said.get('name')!r}"
    absent = [key for key in ("runtime", "command") if not said.get(key)]
    return f"it has no {' and no '.join(absent)}" if absent else ""
