"""What the JUnit report says beyond what pytest writes by itself: properties of the run, and of each test."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pytest_bootc.verdict import SubjectVerdict

#: The properties that a test's report carries.
STATE = "state"
SUBJECT = "image"
SUITE = "suite"
UNMET_NEED = "unmet need"
EXEMPTED = "exempted"
NOT_JUDGED = "not judged"
EVIDENCE = "evidence"


def add_run_properties(verdicts: Iterable[SubjectVerdict], add: Callable[[str, str], None]) -> None:
    """Say what was judged: with several images the names repeat, in one order."""
    for verdict in verdicts:
        add("image", verdict.text)
        if verdict.digest:
            add("digest", verdict.digest)
        if verdict.facts is not None:
            add("scope", verdict.facts.scope.value)
        for suite in verdict.unjudged:
            add("not judged by the suite", suite)
