"""The exit status says who is to blame, and only for runs that judge an image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

RAISES = """
    import pytest
    from pytest_bootc.errors import BackendError, ConfigError, GuestError, SSHCommandError

    def test_it(vm):
        {body}

    def test_good(vm):
        pass
"""


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("pass", 0),
        ("assert 1 == 2", 1),
        ("pytest.fail('no')", 1),
        ("raise GuestError('a unit failed')", 1),
        ("raise SSHCommandError('it gave exit status 1')", 1),
        ("{}['missing']", 1),
        ("raise ConnectionRefusedError(111, 'refused')", 1),
        ("raise ConfigError('no mkfs.erofs')", 4),
        ("raise BackendError('QEMU was killed')", 10),
        ("raise OSError(28, 'No space left on device')", 10),
        ("pytest.skip('not here')", 0),
        ("pytest.exit('enough')", 2),
    ],
)
def test_call(judge: Callable[..., pytest.RunResult], pytester: pytest.Pytester, body: str, status: int) -> None:
    pytester.makepyfile(RAISES.format(body=body))
    assert judge().ret == status


@pytest.mark.parametrize(
    ("body", "status"),
    [("assert 1 == 2", 1), ("raise OSError('no bus')", 10), ("{}['missing']", 10), ("raise GuestError('no')", 1)],
)
@pytest.mark.parametrize("phase", ["setup", "teardown"])
def test_outside_the_call(
    judge: Callable[..., pytest.RunResult], pytester: pytest.Pytester, phase: str, body: str, status: int
) -> None:
    before, after = (body, "pass") if phase == "setup" else ("pass", body)
    pytester.makepyfile(
        f"""
        import pytest
        from pytest_bootc.errors import GuestError

        @pytest.fixture
        def prepared(vm):
            {before}
            yield
            {after}

        def test_it(prepared):
            pass
        """
    )
    assert judge().ret == status


def test_the_image_outweighs_the_lab(judge: Callable[..., pytest.RunResult], pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from pytest_bootc.errors import BackendError, ConfigError
        def test_lab(vm): raise BackendError("killed")
        def test_usage(vm): raise ConfigError("no program")
        def test_image(vm): assert False
        """
    )
    assert judge().ret == 1
    assert judge("--deselect=test_the_image_outweighs_the_lab.py::test_image").ret == 4


def test_nothing_ran(judge: Callable[..., pytest.RunResult], pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(vm): pass")
    assert judge("-k", "other").ret == 5


def test_all_skipped(judge: Callable[..., pytest.RunResult], pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\ndef test_it(vm): pytest.skip('not here')")
    assert judge().ret == 5
    assert pytester.runpytest_inprocess("-k", "other").ret == 5


def test_an_expected_failure_is_no_verdict(judge: Callable[..., pytest.RunResult], pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.xfail\ndef test_it(vm): assert False")
    assert judge().ret == 5


def test_an_unexpected_pass_can_be_strict(judge: Callable[..., pytest.RunResult], pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.xfail(strict=True)\ndef test_it(vm): pass")
    assert judge().ret == 1


def test_one_image_of_two_was_not_judged(
    judge: Callable[..., pytest.RunResult], pytester: pytest.Pytester, layout: Callable[..., str]
) -> None:
    pytester.makepyfile(
        """
        import pytest
        def test_it(vm, image):
            if image.reference.short.startswith("other"):
                pytest.skip("not here")
        """
    )
    assert judge(f"--image={layout('other')}").ret == 5


def test_a_broken_module_is_pytests_affair(judge: Callable[..., pytest.RunResult], pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import no_such_module")
    assert judge().ret == 2


def test_collecting_judges_nothing(judge: Callable[..., pytest.RunResult], pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(vm): assert False")
    result = judge("--collect-only", "-q")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*::test_it[[]server:v1]"])
    result.stdout.no_fnmatch_line("*= bootc =*")


def test_a_plain_run_keeps_pytests_status(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\ndef test_skip(): pytest.skip('x')")
    assert pytester.runpytest_inprocess().ret == 0
    pytester.makepyfile("def test_it(): raise OSError('x')")
    assert pytester.runpytest_inprocess().ret == 1


def test_boots(judge: Callable[..., pytest.RunResult], pytester: pytest.Pytester, script: Callable[..., Path]) -> None:
    pytester.makepyfile("def test_it(vm): pass")
    for word, status in {"ready": 0, "panic": 1, "silent": 1, "broken": 10}.items():
        script(f'boots = ["{word}"]')
        assert judge("--boot-timeout=0.1").ret == status, word


def test_what_passed_only_when_tried_again_is_red(
    judge: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    # What pytest-rerunfailures does, in short.
    pytester.makeconftest(
        """
        from _pytest.runner import runtestprotocol

        def pytest_runtest_protocol(item, nextitem):
            for last in (False, True):
                item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
                for report in runtestprotocol(item, nextitem=nextitem, log=False):
                    if report.failed and not last:
                        report.outcome = "rerun"
                    item.ihook.pytest_runtest_logreport(report=report)
            return True
        """
    )
    pytester.makepyfile(
        """
        tries = []
        def test_it(vm):
            tries.append(1)
            assert len(tries) == 2
        """
    )
    result = judge()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*1 flaky*", "*flaky: *::test_it[[]server:v1]: it passed only when*"])


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ("pytest.skip('not now')", "not now"),
        ("raise DiskError('no room')", "no room"),
        ("raise ConfigError('no such program')", "no such program"),
    ],
)
@pytest.mark.parametrize("phase", ["setup", "call"])
def test_a_failure_stays_one_where_the_second_try_is_not_judged(
    judge: Callable[..., pytest.RunResult], pytester: pytest.Pytester, phase: str, second: str, why: str
) -> None:
    pytester.makepyfile(
        f"""
        import pytest
        from pytest_bootc.errors import ConfigError, DiskError

        tries = []

        def second(phase):
            if len(tries) == 2 and phase == "{phase}":
                {second}

        @pytest.fixture
        def prepared(vm):
            tries.append(1)
            second("setup")

        def test_it(prepared):
            second("call")
            assert tries == []

        def test_good(vm):
            pass
        """
    )
    result = judge("--rerun-failed", "--junitxml=junit.xml")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "*tests: 1 fail, 1 pass*",
            f"*fail: *::test_it*: *assert [[]1] == [[]]*(the second try was not judged: {why})",
        ]
    )
    junit = (pytester.path / "junit.xml").read_text()
    assert 'name="state" value="fail"' in junit
    assert 'skipped="0"' in junit
