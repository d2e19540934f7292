from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import GuestError, WaitTimeoutError
from pytest_bootc.guest import Guest
from pytest_bootc.shell import CommandResult, shell_line
from pytest_bootc.units import UnitError


class Scripted:
    """A guest that answers by the first word of its table that is in the command; answers are used up in turn."""

    def __init__(self, **answers: Sequence[str | tuple[int, str, str]]) -> None:
        self.answers = {word: list(given) for word, given in answers.items()}
        self.asked: list[str] = []
        self.limits: list[Deadline] = []

    def execute(self, command, *, timeout=None, deadline=None, stdin=b"", env=None) -> CommandResult:
        line = shell_line(command, env)
        self.asked.append(line)
        self.limits.append(deadline)
        answers = next(given for word, given in self.answers.items() if word.replace("_", "-") in line)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        status, stdout, stderr = (0, answer, "") if isinstance(answer, str) else answer
        return CommandResult(line, status, stdout.encode(), stderr.encode(), 0.01)


def shown(active: str, **more: str) -> str:
    told = {
        "Id": "x.service",
        "LoadState": "loaded",
        "ActiveState": active,
        "SubState": "none",
        "Result": "success",
        "ConditionResult": "yes",
        "ConditionTimestampMonotonic": "1",
        **more,
    }
    return "".join(f"{name}={value}\n" for name, value in told.items())


class TestWaitingForAUnit:
    def test_it_becomes_active(self):
        runner = Scripted(show=[shown("activating"), shown("activating"), shown("active")])

        assert Guest(runner).wait_for_unit("x.service", timeout=5).active
        assert len(runner.asked) == 3

    def test_a_failed_one_is_not_waited_for(self):
        runner = Scripted(
            show=[shown("activating"), shown("failed", Result="exit-code")],
            status=[(3, "x.service - X\n     Active: failed\n", "")],
        )

        with pytest.raises(UnitError) as caught:
            Guest(runner).wait_for_unit("x.service", timeout=60)
        assert caught.value.brief == "x.service will not become active: it has failed (result exit-code)"
        assert "Active: failed" in caught.value.details
        assert isinstance(caught.value, AssertionError)

    def test_an_inactive_one_is_not_waited_for_when_nothing_is_left_to_do(self):
        runner = Scripted(show=[shown("inactive", ConditionResult="no")], list_jobs=[""], status=[(3, "skipped", "")])

        with pytest.raises(UnitError, match="it was skipped by a condition"):
            Guest(runner).wait_for_unit("x.service", timeout=60)

    def test_an_inactive_one_is_waited_for_while_others_start(self):
        runner = Scripted(
            show=[shown("inactive"), shown("inactive"), shown("inactive"), shown("active")],
            list_jobs=["", "7 y.service start running\n", ""],
        )

        assert Guest(runner).wait_for_unit("x.service", timeout=5).active

    def test_one_with_a_job_of_its_own_is_waited_for(self):
        runner = Scripted(show=[shown("inactive", Job="7"), shown("inactive", Job="7"), shown("active")])

        assert Guest(runner).wait_for_unit("x.service", timeout=5).active

    def test_in_vain(self):
        runner = Scripted(show=[shown("activating")])

        with pytest.raises(WaitTimeoutError, match=r"waited 0\.2 s for x\.service to become active") as caught:
            Guest(runner).wait_for_unit("x.service", timeout=0.2)
        assert caught.value.details == "It was x.service (activating/none, result success)."

    def test_of_a_user(self):
        runner = Scripted(show=[shown("active")])
        Guest(runner).wait_for_unit("x.service", timeout=5, user="core")

        assert "systemctl --user show" in runner.asked[0]


class TestUnits:
    def test_many_are_asked_for_at_once(self):
        runner = Scripted(show=[f"{shown('active')}\n{shown('failed')}"])

        assert [unit.active_state for unit in Guest(runner).units("a.service", "b.service")] == ["active", "failed"]
        assert len(runner.asked) == 1
        assert runner.asked[0].endswith("-- a.service b.service")
        assert Guest(runner).units() == []

    def test_an_answer_for_another_number_of_units_is_an_error(self):
        with pytest.raises(GuestError, match="told of 1 units instead of 2"):
            Guest(Scripted(show=[shown("active")])).units("a.service", "b.service")

    def test_systemctl_may_be_missing(self):
        runner = Scripted(show=[(127, "", "sh: systemctl: not found\n")])

        with pytest.raises(GuestError, match="systemctl cannot be asked") as caught:
            Guest(runner).unit("a.service")
        assert "not found" in caught.value.details

    def test_the_state_of_the_system_comes_with_an_exit_status_of_its_own(self):
        assert Guest(Scripted(is_system_running=[(1, "degraded\n", "")])).system_state() == "degraded"
        assert not Guest(Scripted(is_system_running=[(1, "degraded\n", "")])).is_system_running()
        assert Guest(Scripted(is_system_running=["running\n"])).is_system_running()
        with pytest.raises(GuestError, match="does not tell the state"):
            Guest(Scripted(is_system_running=[(1, "", "Failed to connect to bus\n")])).system_state()


class TestDeployment:
    bootc = json.dumps({"spec": {}, "status": {"type": "bootcHost", "booted": {"ostree": {"checksum": "c1"}}}})
    nothing = json.dumps({"spec": {}, "status": {"type": None}})
    ostree = f"* os {'a1' * 32}.0\n"

    @staticmethod
    def guest(bootc: str, ostree: str, bootc_status: int = 0, stderr: str = "") -> Guest:
        told = f"\x1ebootc\n{bootc}\x1ebootc.status\n{bootc_status}\n\x1eostree\n{ostree}\x1eostree.status\n0\n"
        return Guest(Scripted(bootc=[(0, told, stderr)]))

    @pytest.mark.parametrize(
        ("bootc", "ostree_says", "provider"),
        [(bootc, ostree, "bootc"), (nothing, ostree, "ostree"), ("", ostree, "ostree"), (bootc, "", "bootc")],
    )
    def test_the_first_provider_that_knows_is_believed(self, bootc, ostree_says, provider):
        assert self.guest(bootc, ostree_says).deployment().provider == provider

    @pytest.mark.parametrize("bootc", [nothing, ""])
    def test_a_root_that_is_no_deployment(self, bootc):
        assert self.guest(bootc, "").deployment() is None

    def test_a_bootc_that_fails_is_quoted(self):
        said = "error: Status: Computing boot status: opendir(boot): Operation not permitted\n"

        with pytest.raises(GuestError, match="bootc cannot tell what is deployed") as caught:
            self.guest("", self.ostree, bootc_status=1, stderr=said).deployment()
        assert said.strip() in caught.value.details


class TestJournal:
    entry = json.dumps({"__CURSOR": "c1", "__REALTIME_TIMESTAMP": "1", "MESSAGE": "x"}) + "\n"

    def test_the_cursor_is_that_of_the_newest_entry(self):
        runner = Scripted(journalctl=[self.entry])

        assert Guest(runner).journal_cursor() == "c1"
        assert "--lines=1" in runner.asked[0]
        assert Guest(Scripted(journalctl=[""])).journal_cursor() is None

    def test_trouble_is_not_taken_for_an_empty_journal(self):
        runner = Scripted(journalctl=[(0, "", "No journal files were opened due to insufficient permissions.\n")])

        with pytest.raises(GuestError, match="journalctl cannot be asked") as caught:
            Guest(runner).journal()
        assert "insufficient permissions" in caught.value.details


class TestPrograms:
    def test_a_guest_that_cannot_hash_says_so(self):
        runner = Scripted(sha256sum=[(127, "", "xargs: sha256sum: No such file or directory\n")])

        with pytest.raises(GuestError, match="sha256sum cannot be run") as caught:
            Guest(runner).hash_files(["/a"])
        assert "No such file" in caught.value.details

    def test_files_that_cannot_be_read_are_left_out(self):
        printed = f"{'0a' * 32}  /a\n"
        runner = Scripted(sha256sum=[(123, printed, "sha256sum: /b: No such file or directory\n")])

        assert Guest(runner).hash_files(["/a", "/b"]) == {"/a": "0a" * 32}

    def test_coredumps_are_read_from_the_journal(self):
        fields = {"__CURSOR": "c", "__REALTIME_TIMESTAMP": "1", "COREDUMP_PID": "7", "COREDUMP_EXE": "/usr/bin/x"}
        runner = Scripted(journalctl=[json.dumps(fields) + "\n"])

        assert [core.executable for core in Guest(runner).coredumps(since_cursor="b")] == ["/usr/bin/x"]
        assert "--after-cursor=b" in runner.asked[0]


class TestLimits:
    @pytest.mark.parametrize("ask", [Guest.kernel_release, lambda guest: guest.succeed("uname", timeout=50)])
    def test_a_guest_within_a_deadline_keeps_it(self, ask: Callable[[Guest], object]):
        runner = Scripted(uname=["6.12\n"])
        limit = Deadline.after(3)
        ask(Guest(runner).within(limit))

        assert runner.limits == [limit]

    def test_a_nearer_limit_counts(self):
        runner = Scripted(uname=["6.12\n"])
        Guest(runner).within(Deadline.after(30)).execute("uname", timeout=2)

        assert runner.limits[0].seconds == 2

    def test_without_one_a_question_has_a_minute(self):
        runner = Scripted(uname=["6.12\n"])
        Guest(runner).kernel_release()

        assert runner.limits[0].seconds == 60
