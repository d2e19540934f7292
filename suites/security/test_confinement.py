"""What programs may not do they cannot do: the profiles of AppArmor are loaded and obeyed, and nothing was denied.

The parts about SELinux alone are in selinux.feature. Sources: apparmor(7), apparmor.d(5), apparmor_parser(8).
"""

from __future__ import annotations

import pytest

from pytest_bootc import health
from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import WaitTimeoutError
from pytest_bootc.guarding import Exempting
from pytest_bootc.guest import Guest
from pytest_bootc.machine.pool import VM
from pytest_bootc.model import Trouble

_APPARMOR = "grep -q Y /sys/module/apparmor/parameters/enabled"
_EITHER = f"[ -e /sys/fs/selinux/enforce ] || {_APPARMOR}"
_LOADED = "/sys/kernel/security/apparmor/profiles"
_FOLDER = "/etc/apparmor.d"
_PARSE_SECONDS = 60.0
_LOG_SECONDS = 5.0
# One that lets a program read and execute everything, and write nothing.
_TRIED = "pytest-bootc-tried"
_PROFILE = f"profile {_TRIED} {{ /** mrix, }}\n".encode()
_TARGET = "/run/pytest-bootc-denied"


@pytest.mark.needs(f"command:{_APPARMOR}", f"file:{_FOLDER}", "program:apparmor_parser")
def test_profiles_are_loaded(vm: VM, guest: Guest) -> None:
    """The kernel has every profile of AppArmor that the image has in /etc/apparmor.d and that is not disabled.

    A profile that cannot be parsed, or whose loading at boot was skipped, leaves its program with all rights.
    """
    seconds = _PARSE_SECONDS * vm.facts.time_factor
    named = guest.execute(["apparmor_parser", "--names", _FOLDER], timeout=seconds)
    assert named.status == 0, f"the profiles in {_FOLDER} cannot be parsed: {named.stderr.strip()}"
    expected = set(named.stdout.splitlines())
    assert expected, f"there is no profile in {_FOLDER}, so AppArmor confines nothing"
    loaded = {line.rpartition(" (")[0] for line in guest.succeed(["cat", _LOADED]).splitlines()}
    missing = sorted(expected - loaded)
    assert not missing, f"these profiles are in {_FOLDER}, and not loaded: {', '.join(missing)}"


@pytest.mark.needs(f"command:{_APPARMOR}", "program:apparmor_parser", "program:aa-exec")
@pytest.mark.expects_trouble("avc", reason="a profile is tried, and what it denies has to be logged")
def test_profiles_are_obeyed(vm: VM, guest: Guest) -> None:
    """What a profile of AppArmor does not allow is denied, and the journal tells of it.

    A profile is loaded for this, and removed again. Without the message nobody learns why a program does not work, and
    the check that nothing was denied would prove nothing.
    """
    loading = guest.execute(["apparmor_parser", "--replace"], stdin=_PROFILE)
    assert loading.status == 0, f"no profile can be loaded: {loading.stderr.strip()}"
    cursor = guest.journal_cursor()
    try:
        tried = guest.execute(["aa-exec", "-p", _TRIED, "--", "sh", "-c", f"echo written >{_TARGET}"])
        written = guest.execute(["rm", _TARGET]).status == 0
    finally:
        guest.execute(["apparmor_parser", "--remove"], stdin=_PROFILE)
    assert not written, f"a program wrote {_TARGET}, which its profile does not allow"
    assert "ermission denied" in tried.stderr, f"the program failed for another reason: {tried.stderr.strip()}"

    def logged() -> bool:
        entries = guest.journal(since_cursor=cursor)
        return any('apparmor="DENIED"' in entry.message and _TRIED in entry.message for entry in entries)

    try:
        wait_until(logged, Deadline.after(_LOG_SECONDS * vm.facts.time_factor), what="the denial in the journal")
    except WaitTimeoutError:
        raise AssertionError("a program was kept from writing, and the journal does not tell of it") from None


@pytest.mark.needs(f"command:{_EITHER}")
def test_nothing_was_denied(guest: Guest, exemptions: Exempting) -> None:
    """Neither SELinux nor AppArmor denied anything since the boot: policy and programs of the image go together.

    What AppArmor only would have denied (*complain*) does not count.
    """
    reading = health.parse(guest.succeed(health.CHECK))
    found = health.Ledger().enter(reading, (), 0.0, 1.0)
    denied = [each for each in found if each.kind is Trouble.AVC and _TRIED not in each.text]
    counting = [each.text for each in exemptions.without(denied)]
    told = "\n".join(f"  {text}" for text in counting)
    assert not counting, f"{len(counting)} things were denied since the boot:\n{told}"
