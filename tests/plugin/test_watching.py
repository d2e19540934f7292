"""What is noticed while a test runs, whose fault it is, and what becomes of the tests that follow."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

Judge = Callable[..., pytest.RunResult]
Script = Callable[..., Path]

PANIC = "[   12.3] Kernel panic - not syncing: sysrq triggered crash"
DEADLY = f"""
[[control]]
match = "panic"
prints = "{PANIC}\\n"
hang = true
"""
LOSING = """
[[control]]
match = "kill"
loses = "the QEMU process was ended by signal 9 (SIGKILL)"
"""


def health(failed: str = "", jobs: str = "", journal: str = "") -> str:
    answer = f"\\u001efailed\n{failed}\n\\u001ejobs\n{jobs}\n\\u001ejournal\n{journal}\n\\u001eend\n"
    return f'[[control]]\nmatch = "base-check"\noutput = """\n{answer}"""\n'


@pytest.mark.parametrize(
    "wait",
    [
        "vm.control('panic')",
        "vm.control('panic in a moment', Deadline.after(300))",
        "threading.Event().wait(300)",
        "socket.socketpair()[0].recv(1)",
        "subprocess.run(['/bin/sleep', '300'])",
    ],
)
def test_a_panic_ends_the_test_that_waits(judge: Judge, pytester: pytest.Pytester, script: Script, wait: str) -> None:
    script(DEADLY)
    pytester.makepyfile(
        f"""
        import contextlib, socket, subprocess, threading
        from pytest_bootc.deadline import Deadline

        def test_it(vm):
            def panic():
                with contextlib.suppress(Exception):
                    vm.control("panic", Deadline.after(0.1))

            threading.Thread(target=panic, daemon=True).start()
            {wait}
        """
    )
    began = time.monotonic()
    result = judge()
    assert time.monotonic() - began < 10
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"*fail: *::test_it*: the guest is in trouble: panic: {PANIC.replace('[', '[[]')}"])


def test_a_test_that_catches_everything_is_ended_all_the_same(
    judge: Judge, pytester: pytest.Pytester, script: Script
) -> None:
    script(DEADLY)
    pytester.makepyfile(
        """
        import time
        def test_it(vm):
            began = time.monotonic()
            while time.monotonic() - began < 3:
                try:
                    vm.control("panic")
                except Exception:
                    pass
        """
    )
    result = judge()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*fail: *::test_it*: the guest is in trouble: panic: *"])


def test_the_tests_after_a_panic_have_a_fresh_machine(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    log = script(DEADLY)
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.parametrize("n", range(5))
        def test_it(vm, n):
            if n == 1:
                vm.control("panic")
        """
    )
    result = judge()
    assert result.ret == 1
    result.assert_outcomes(passed=4, failed=1)
    assert [line.split()[0] for line in log.read_text().splitlines()].count("provision") == 2


def test_an_image_that_panics_again_and_again_is_not_booted_for_each_test(
    judge: Judge, pytester: pytest.Pytester, script: Script
) -> None:
    log = script(DEADLY)
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.parametrize("n", range(5))
        def test_it(vm, n): vm.control("panic")
        """
    )
    result = judge()
    assert result.ret == 1
    result.assert_outcomes(failed=2, errors=3)
    result.stdout.fnmatch_lines(["*fail: *the image brought down 2 machines, and gets no other: *panic*"])
    assert [line.split()[0] for line in log.read_text().splitlines()].count("provision") == 2


def test_what_the_laboratory_lost_is_tried_once_more(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    log = script(f"{LOSING}machines = 1\n")
    pytester.makepyfile(
        """
        def test_it(vm): vm.control("true; kill")
        def test_other(vm): pass
        """
    )
    result = judge("--junitxml=junit.xml", "-rR")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "*  run once more: *::test_it*: the QEMU process was ended by signal 9 (SIGKILL)",
        ]
    )
    assert "1 rerun" in result.stdout.str()
    assert [line.split()[0] for line in log.read_text().splitlines()].count("provision") == 2
    junit = (pytester.path / "junit.xml").read_text()
    assert junit.count("<testcase ") == 2
    assert 'errors="0" failures="0"' in junit


def test_what_the_laboratory_loses_twice_is_infra(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    log = script(LOSING)
    pytester.makepyfile("def test_it(vm): vm.control('kill')")
    result = judge("--junitxml=junit.xml")
    assert result.ret == 10
    result.stdout.fnmatch_lines(["*infra: *::test_it*: the QEMU process was ended by signal 9 (SIGKILL)"])
    assert [line.split()[0] for line in log.read_text().splitlines()].count("provision") == 2


def test_a_host_that_cannot_run_a_machine_is_asked_twice(
    judge: Judge, pytester: pytest.Pytester, script: Script
) -> None:
    log = script('boots = ["broken"]')
    pytester.makepyfile("def test_one(vm): pass\ndef test_two(vm): pass\ndef test_three(vm): pass")
    result = judge()
    assert result.ret == 10
    assert [line.split()[0] for line in log.read_text().splitlines()].count("provision") == 2
    result.stdout.fnmatch_lines(
        ["*infra: *::test_one*: the fake host cannot run*", "*infra: *::test_three*(see the first error)"]
    )


def test_a_failure_is_run_once_more_where_that_is_wanted(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        tries = []
        def test_flaky(vm):
            tries.append(vm.name)
            assert len(set(tries)) == 2
        def test_bad(vm): assert False, "as always"
        def test_good(vm): pass
        """
    )
    result = judge("--rerun-failed", "--junitxml=junit.xml", "-v")
    assert result.ret == 1
    result.stdout.fnmatch_lines_random(
        [
            "*::test_flaky*RERUN*",
            "*::test_flaky*FLAKY*",
            "*::test_bad*FAILED*",
            "*tests: 1 fail, 1 flaky, 1 pass*",
            "*flaky: *::test_flaky*: It passed only when it was tried again. At first: AssertionError: assert 1 == 2*",
            "*fail: *::test_bad*: *as always*",
        ]
    )
    junit = (pytester.path / "junit.xml").read_text()
    assert junit.count("<testcase ") == 3
    assert 'errors="0" failures="2"' in junit


def test_without_that_wish_it_is_not(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("tries = []\ndef test_it(vm):\n    tries.append(1)\n    assert len(tries) == 2")
    result = judge()
    result.assert_outcomes(failed=1)
    assert result.ret == 1


def test_a_unit_that_fails_during_a_test(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    script(health(failed="foo.service loaded failed failed Foo"))
    pytester.makepyfile("def test_one(vm): pass\ndef test_two(vm): pass")
    result = judge()
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*fail: *::test_one*: the guest is not well: failed-unit: foo.service"])
    assert "contextlib" not in result.stdout.str()


def test_an_oom_kill_ends_the_test(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    script('[[control]]\nmatch = "eat"\nprints = "[ 9.0] Out of memory: Killed process 7 (x)\\n"')
    pytester.makepyfile(
        """
        import pytest, time
        def test_it(vm):
            vm.control("eat")
            time.sleep(60)

        @pytest.mark.expects_trouble("oom", reason="it eats")
        def test_expected(vm):
            vm.control("eat")
            time.sleep(0.5)

        def test_good(vm): pass
        """
    )
    began = time.monotonic()
    result = judge()
    assert time.monotonic() - began < 10
    result.assert_outcomes(failed=1, passed=2)


@pytest.mark.parametrize(
    ("mark", "says"),
    [
        ("'oom'", "needs words, and a reason"),
        ("reason='because'", "needs words, and a reason"),
        ("'oops', 'ooom', reason='because'", "does not know 'ooom'"),
    ],
)
def test_a_wrong_marker_is_a_wrong_question(judge: Judge, pytester: pytest.Pytester, mark: str, says: str) -> None:
    pytester.makepyfile(f"import pytest\n@pytest.mark.expects_trouble({mark})\ndef test_it(vm): pass")
    result = judge()
    assert result.ret == 4
    result.stdout.fnmatch_lines([f"*the marker expects_trouble {says}*"])


def test_what_is_exempted_is_told_and_does_not_count(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    script(health(failed="foo.service loaded failed failed Foo\nbar.service loaded failed failed Bar"))
    exemption = """
        [[exempt]]
        trouble = "failed-unit"
        pattern = "foo.*"
        image = "*"
        owner = "me"
        tracker = "https://tracker.example/1"
        expires = 2999-12-31
    """
    pytester.makefile(".toml", known=exemption)
    pytester.makepyfile("def test_it(vm): pass")
    result = judge("--exemptions=known.toml", "--junitxml=junit.xml")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "  exempted: failed-unit: foo.service (until 2999-12-31, me, https://tracker.example/1)",
            "*fail: *::test_it*: the guest is not well: failed-unit: bar.service",
        ]
    )
    assert 'name="exempted"' in (pytester.path / "junit.xml").read_text()
    script(health(failed="foo.service loaded failed failed Foo"))
    assert judge("--exemptions=known.toml").ret == 0


def test_an_expired_exemption_is_a_wrong_question(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makefile(
        ".toml",
        known="[[exempt]]\ntrouble='oom'\npattern='*'\nimage='*'\nowner='me'\ntracker='t'\nexpires=2020-01-01",
    )
    pytester.makepyfile("def test_it(vm): pass")
    result = judge("--exemptions=known.toml")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*known.toml, exemption 1 has expired on 2020-01-01*"])


def test_a_guest_that_does_not_say_how_it_is_hangs(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    script(
        '[[control]]\nmatch = "base-check"\noutput = "Failed to connect to bus"\n[[control]]\nmatch = ":"\nhang = true'
    )
    pytester.makepyfile("def test_it(vm): pass")
    result = judge()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*fail: *::test_it*: the guest hangs: *"])


def test_a_run_that_was_cut_off_is_not_good(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        def test_one(vm): pass
        def test_two(vm): pytest.exit("enough", returncode=0)
        def test_three(vm): pass
        """
    )
    result = judge()
    assert result.ret == 2
    result.stdout.fnmatch_lines(["cut off: 2 tests were not run: *::test_two*, *::test_three*"])


def test_a_plugin_that_runs_tests_its_own_way_is_left_alone(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        from _pytest.runner import runtestprotocol
        def pytest_runtest_protocol(item, nextitem):
            item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
            runtestprotocol(item, nextitem=nextitem)
            print("in its own way")
            return True
        """
    )
    pytester.makepyfile("def test_it(vm): pass")
    result = judge("-s")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*in its own way*"])
