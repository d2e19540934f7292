"""What an image sets for its users is in databases that programs read: they have what their sources say."""

from __future__ import annotations

import pytest

from pytest_bootc.guest import Guest

_SCHEMAS = "/usr/share/glib-2.0/schemas"
# A folder's sources and its database, read the same way: through a profile of nothing else but a user who has none.
_COMPARE = """
set -eu
own=$(mktemp -d)
trap 'rm -rf "$own"' EXIT
read_all() {
    printf 'user-db:none\\nfile-db:%s\\n' "$1" >"$own/profile"
    DCONF_PROFILE=$own/profile dconf dump /
    DCONF_PROFILE=$own/profile dconf list-locks /
}
for folder in /etc/dconf/db/*.d; do
    database=${folder%.d}
    find "$folder" -type f | grep -q . || continue
    [ -e "$database" ] || { echo "$database is not there"; continue; }
    dconf compile "$own/fresh" "$folder"
    read_all "$own/fresh" >"$own/wanted"
    read_all "$database" >"$own/found"
    diff -U 3 --label "$folder" "$own/wanted" --label "$database" "$own/found" || [ $? = 1 ]
done
"""


@pytest.mark.needs("program:dconf", "command:ls -d /etc/dconf/db/*.d")
def test_databases_of_dconf_are_fresh(guest: Guest) -> None:
    """Each database in /etc/dconf/db has the values and locks of the files that it is made of (dconf(7)).

    Where a later layer brings such a file, and nobody runs ``dconf update``, its defaults and locks are not in effect.
    """
    result = guest.execute(["sh", "-c", _COMPARE])
    assert result.status == 0, f"the databases of dconf cannot be compared: {result.stderr.strip()}"
    assert not result.stdout, f"databases of dconf are not what their files say:\n{result.stdout.strip()}"


@pytest.mark.needs("program:glib-compile-schemas", f"file:{_SCHEMAS}")
def test_compiled_schemas_are_fresh(guest: Guest) -> None:
    """gschemas.compiled is what glib-compile-schemas(1) makes of the schemas and overrides that are there.

    Programs only read that one: an override that came after it does nothing, and a program whose schema is not in it
    ends at its start.
    """
    made = guest.execute(f'own=$(mktemp -d) && echo "$own" && glib-compile-schemas --targetdir="$own" {_SCHEMAS}')
    assert made.status == 0, f"the schemas cannot be compiled: {made.stderr.strip()}"
    own = made.stdout.strip()
    compared = guest.execute(["cmp", f"{own}/gschemas.compiled", f"{_SCHEMAS}/gschemas.compiled"])
    guest.succeed(["rm", "-r", own])
    assert compared.status == 0, (
        f"{_SCHEMAS}/gschemas.compiled is not what the schemas beside it make: "
        f"{compared.stdout.strip() or compared.stderr.strip()}"
    )
