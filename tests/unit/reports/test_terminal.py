from __future__ import annotations

from pathlib import Path

from pytest_bootc.model import MachineFacts, Scope
from pytest_bootc.reports.terminal import environment, evidence_line, header, summary
from pytest_bootc.verdict import Outcome, State, SubjectVerdict

FACTS = MachineFacts("qemu", "kvm", "QEMU 9.2", "quiet", Scope.RUNNING_SYSTEM, notes=("selinux: off",))


def verdict(*outcomes: Outcome, facts: MachineFacts | None = FACTS) -> SubjectVerdict:
    return SubjectVerdict("a:b", "h.example/a:b", "sha256:00", facts, outcomes)


def test_the_first_line_is_the_verdict() -> None:
    for state, word in {State.PASS: "good", State.FAIL: "bad", State.SKIP: "not judged"}.items():
        assert next(summary(verdict(Outcome("t", "a:b", state)))) == f"h.example/a:b: {word}"
    assert "laboratory" in next(summary(verdict(Outcome("t", "a:b", State.INFRA))))


def test_what_a_backend_does_not_say_is_left_out() -> None:
    lines = list(summary(verdict(facts=MachineFacts("remote", "", "", "", Scope.RUNNING_SYSTEM))))
    assert "  machine: remote" in lines
    assert not any("kernel arguments" in line for line in lines)


def test_where_nothing_booted() -> None:
    assert list(summary(verdict(facts=None)))[2:] == ["  machine: none has booted", "  tests: none ran"]


def test_a_long_list_of_failures_is_cut_and_says_so() -> None:
    lines = list(summary(verdict(*(Outcome(f"t{n}", "a:b", State.FAIL, "no") for n in range(25)))))
    assert lines[-2:] == ["  fail: t19: no", "  ... and 5 more"]
    assert "  tests: 25 fail" in lines


def test_the_worst_comes_first_in_the_count() -> None:
    outcomes = [Outcome(state.value, "a:b", state) for state in State]
    assert "  tests: 1 fail, 1 flaky, 1 usage, 1 infra, 1 pass, 1 skip" in list(summary(verdict(*outcomes)))


def test_a_host_has_no_digest() -> None:
    host = SubjectVerdict("h", "host h", "", FACTS, ())
    assert list(header([host], "remote")) == ["bootc: host h, backend remote"]
    assert not any("digest" in line for line in summary(host))
    assert "digest" not in environment([host])


def test_evidence_is_named_where_there_is_some(tmp_path: Path) -> None:
    assert evidence_line(tmp_path / "none") is None
    assert evidence_line(tmp_path) is None
    (tmp_path / "test_a").mkdir()
    assert evidence_line(tmp_path) == f"evidence: {tmp_path}"


def test_the_worst_failures_come_first_and_say_what_is_wrong() -> None:
    lab, first, second = (
        Outcome("lab", "a:b", State.INFRA, "QEMU was killed"),
        Outcome("first", "a:b", State.FAIL, "AssertionError: failed units: x"),
        Outcome("second", "a:b", State.FAIL, "assert 1 == 2"),
    )
    assert list(summary(verdict(lab, first, second)))[-3:] == [
        "  fail: first: failed units: x",
        "  fail: second: assert 1 == 2",
        "  infra: lab: QEMU was killed",
    ]
