"""What the terminal shows of a run that judges images: some lines before, a section at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_bootc.verdict import State, SubjectVerdict

_SHOWN_FAILURES = 20
_SHOWN_NAMES = 5


def header(verdicts: Sequence[SubjectVerdict], backend: str) -> Iterator[str]:
    """The lines that name what is judged."""
    for verdict in verdicts:
        digest = f", {verdict.digest}" if verdict.digest else ""
        yield f"bootc: {verdict.text}{digest}, backend {backend}"


def summary(verdict: SubjectVerdict) -> Iterator[str]:
    """The lines that say how one subject fared."""
    yield f"{verdict.text}: {verdict.conclusion}"
    if verdict.digest:
        yield f"  digest: {verdict.digest}"
    facts = verdict.facts
    if facts is None:
        yield "  machine: none has booted"
    else:
        yield f"  scope: {facts.scope.value}"
        yield f"  machine: {', '.join(filter(None, (facts.backend, facts.accelerator, facts.emulator, facts.origin)))}"
        if facts.kernel_arguments:
            yield f"  kernel arguments: {facts.kernel_arguments}"
        for note in facts.notes:
            yield f"  note: {note}"
    yield f"  tests: {_counted(verdict)}"
    for line in unjudged([verdict]):
        yield f"  {line}"
    needs = Counter(need for outcome in verdict.outcomes for need in outcome.unmet_needs)
    if needs:
        yield "  skipped for unmet needs: " + ", ".join(f"{need} ({count})" for need, count in sorted(needs.items()))
    not_judged = _not_judged(verdict)
    if not_judged:
        yield f"  not judged: {not_judged}"
    for told in _exempted(verdict):
        yield f"  exempted: {told}"
    for outcome in verdict.outcomes:
        if outcome.retried:
            yield f"  run once more: {outcome.nodeid}: {outcome.retried}"
    # The worst first, and among them those that the others may follow from.
    bad = sorted((outcome for outcome in verdict.outcomes if outcome.state.red), key=lambda bad: -bad.state.weight)
    for outcome in bad[:_SHOWN_FAILURES]:
        yield f"  {outcome.state.value}: {outcome.nodeid}: {outcome.line.removeprefix('AssertionError: ')}"
        if outcome.evidence:
            yield f"    evidence: {outcome.evidence}"
    if len(bad) > _SHOWN_FAILURES:
        yield f"  ... and {len(bad) - _SHOWN_FAILURES} more"


def cut_off(missing: Sequence[str]) -> Iterator[str]:
    """The lines that say which tests should have been run and were not."""
    if missing:
        yield f"cut off: {len(missing)} tests were not run: {_shortened(missing)}"


def unjudged(verdicts: Sequence[SubjectVerdict]) -> Iterator[str]:
    """The lines that say which suites were asked for and have judged nothing, and why."""
    for verdict in verdicts:
        for suite in verdict.unjudged:
            reasons = sorted(verdict.skipped_for(suite).items(), key=lambda reason: (-reason[1], reason[0]))
            told = _shortened([f"{reason} ({count})" for reason, count in reasons])
            yield f"suite {suite}: {verdict.name} was not judged by it, all its tests were skipped: {told}"


def environment(verdicts: Sequence[SubjectVerdict]) -> dict[str, str]:
    """What held for the whole run, by name; with several subjects each name has its subject in front."""
    found: dict[str, str] = {}
    for verdict in verdicts:
        said = {"verdict": verdict.conclusion, "image": verdict.text, "digest": verdict.digest}
        if verdict.facts is not None:
            said |= {
                "scope": verdict.facts.scope.value,
                "backend": verdict.facts.backend,
                "accelerator": verdict.facts.accelerator,
                "emulator": verdict.facts.emulator,
                "start": verdict.facts.origin,
                "kernel arguments": verdict.facts.kernel_arguments,
                "notes": "; ".join(verdict.facts.notes),
            }
        said |= {"not judged": _not_judged(verdict), "exempted": "; ".join(_exempted(verdict))}
        prefix = f"{verdict.name} " if len(verdicts) > 1 else ""
        found |= {f"{prefix}{name}": value for name, value in said.items() if value}
    return found


def evidence_line(folder: Path) -> str | None:
    """Where evidence was kept, if any was."""
    return f"evidence: {folder}" if folder.is_dir() and any(folder.iterdir()) else None


def _not_judged(verdict: SubjectVerdict) -> str:
    names = sorted({name for outcome in verdict.outcomes for name in outcome.not_judged})
    return f"{len(names)} units that were skipped by their conditions: {_shortened(names)}" if names else ""


def _exempted(verdict: SubjectVerdict) -> list[str]:
    return sorted({told for outcome in verdict.outcomes for told in outcome.exempted})


def _shortened(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more


def _counted(verdict: SubjectVerdict) -> str:
    counts = Counter(outcome.state for outcome in verdict.outcomes)
    words = [f"{counts[state]} {state.value}" for state in reversed(State) if counts[state]]
    return ", ".join(words) or "none ran"
