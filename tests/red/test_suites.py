"""Each check of the suites goes red: something is broken in a running guest, and the check says so (see breaking.py).

One machine for each image serves all of it. An inner run of pytest boots it through the plugin, runs the checks on the
sound guest, and then, for each break, breaks the guest, runs the one check again, and mends what it broke.
"""

from __future__ import annotations

import fcntl
import json
import tomllib
from collections.abc import Callable, Iterable

import breaking
import collecting
import pytest
from breaking import Break, Inner, Outcomes

pytestmark = pytest.mark.integration

BREAKS = breaking.read_breaks()
EXPECTED = breaking.read_outcomes()
EXCUSED: dict[str, str] = tomllib.loads((breaking.RED / "excused.toml").read_text())


def marked(case: str) -> object:
    """The case as a parameter."""
    return case if BREAKS[case].is_short else pytest.param(case, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcomes]:
    """What became of the checks on an image, for what this session has selected: one machine for all its workers."""
    items = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    cases = [item.callspec.params["case"] for item in items if "case" in item.callspec.params]
    whole = {item.callspec.params["image"] for item in items if "image" in item.callspec.params}
    selected = {BREAKS[case].test for case in cases}
    common = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        common = common.parent

    def judge(image: str) -> Outcomes:
        # All of a check's breaks: one may stand on the one before.
        breaks = {name: each for name, each in BREAKS.items() if each.image == image and each.test in selected}
        tests = [each.test for each in breaks.values()]
        known = list(EXPECTED.get(image, ())) if image in whole else []
        suites = breaking.suites_of([*tests, *known])
        inner = Inner(image, suites, breaks, None if image in whole else frozenset(tests))
        return inner.judge(tmp_path_factory.mktemp(image))

    def told(image: str) -> Outcomes:
        with (common / f"suites-{image}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = common / f"suites-{image}.json"
            if not kept.exists():
                kept.write_text("{}")  # where the inner run breaks, it is not begun anew for each of the breaks
                kept.write_text(json.dumps(judge(image)))
        read: Outcomes = json.loads(kept.read_text())
        return read

    return told


@pytest.mark.qemu
@pytest.mark.parametrize("case", [marked(case) for case in BREAKS])
def test_a_check_tells_what_is_broken(case: str, outcomes: Callable[[str], Outcomes]) -> None:
    broken = BREAKS[case]
    told = outcomes(broken.image)
    before = breaking.as_recorded(told.get(broken.test, ("not found", "")))
    assert before == EXPECTED[broken.image].get(broken.test), "on the sound guest"
    after, said = told[case]
    assert after == broken.outcome, said
    assert broken.says in said


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.parametrize("image", EXPECTED)
def test_the_sound_guest_is_judged_as_recorded(image: str, outcomes: Callable[[str], Outcomes]) -> None:
    told = {test: breaking.as_recorded(outcome) for test, outcome in outcomes(image).items() if test not in BREAKS}
    assert told == EXPECTED[image]


@pytest.fixture(scope="module")
def collected() -> set[str]:
    """All checks of the suites."""
    return set(collecting.read())


def bare(tests: Iterable[str]) -> set[str]:
    """The functions and scenarios, without their parameters."""
    return {breaking.without_parameters(test) for test in tests}


def test_each_check_can_fail(collected: set[str]) -> None:
    failing = bare(each.test for each in BREAKS.values() if each.outcome == "failed")
    assert bare(collected) - failing - EXCUSED.keys() == set(), "no break makes these fail: see tests/red/breaking.py"
    assert EXCUSED.keys() & failing == set(), "these are excused, and have a break"


def test_only_what_there_is_is_broken_and_excused(collected: set[str]) -> None:
    assert {each.test for each in BREAKS.values()} - collected == set()
    assert EXCUSED.keys() - bare(collected) == set()


def test_each_check_has_been_run(collected: set[str]) -> None:
    known = {test for outcomes in EXPECTED.values() for test in outcomes}
    assert known == collected, "write down what becomes of them: python tests/red/record.py IMAGE SUITE"


def test_breaks_are_made_on_images_where_the_check_runs() -> None:
    missing = {each.test for each in BREAKS.values() if each.test not in EXPECTED.get(each.image, {})}
    assert missing == set()


@pytest.mark.parametrize(
    ("nodeid", "name"),
    [
        ("boot/a.py::b[server:latest]", "boot/a.py::b"),
        ("boot/a.py::b[server:latest-c]", "boot/a.py::b[c]"),
        ("boot/a.feature::b <c>[c=d-server:latest]", "boot/a.feature::b <c>[c=d]"),
        ("boot/a.feature::b", "boot/a.feature::b"),
    ],
)
def test_names_are_without_the_image(nodeid: str, name: str, request: pytest.FixtureRequest) -> None:
    class Named(breaking.Between):
        nodeid = ""

    item = Named.from_parent(request.session, name="named")
    item.nodeid = nodeid
    assert dict(breaking.named([item], "server:latest")) == {name: item}


def test_a_break_says_where_and_when() -> None:
    assert Break("a", image="server").is_short
    assert not Break("a", image="workstation").is_short
    assert Break("a", image="workstation", short=True).is_short
