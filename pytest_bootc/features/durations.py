"""Which steps took longest. Works on reports alone, which xdist's controller has, and imports nothing of behave."""

from __future__ import annotations

import pytest

#: The attribute by which a report carries the steps of a scenario: keyword, name, status, seconds and line of each.
STEPS = "bootc_steps"


def summarise(reporter: pytest.TerminalReporter) -> None:
    """Write the slowest steps, as many as ``--durations`` says; none that took less than ``--durations-min``."""
    option = reporter.config.option
    shortest = option.durations_min if option.durations_min is not None else 0.005
    reports = {id(report): report for reports in reporter.stats.values() for report in reports}.values()
    steps = [
        (seconds, f"{keyword} {name}", report.nodeid)
        for report in reports
        for keyword, name, _, seconds, _ in getattr(report, STEPS, ())
        if seconds >= shortest
    ]
    slowest = sorted(steps, key=lambda step: -step[0])[: option.durations or None]
    if slowest:
        reporter.section(f"slowest {option.durations} steps" if option.durations else "slowest steps")
    for seconds, step, nodeid in slowest:
        reporter.write_line(f"{seconds:.2f}s {step}  ({nodeid})")
