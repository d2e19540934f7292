from __future__ import annotations

import threading
import time

from pytest_bootc.timeline import Timeline


def test_events_are_told_with_their_times_in_their_order() -> None:
    timeline = Timeline()
    assert timeline.events() == []
    began = time.monotonic()
    timeline.note("power on")
    time.sleep(0.01)
    timeline.note("ready")
    (first, on), (second, ready) = timeline.events()
    assert (on, ready) == ("power on", "ready")
    assert began <= first < second <= time.monotonic()


def test_what_was_told_does_not_grow() -> None:
    timeline = Timeline()
    told = timeline.events()
    timeline.note("power on")
    assert told == []
    timeline.events().clear()
    assert [text for _, text in timeline.events()] == ["power on"]


def test_events_of_many_threads_are_in_the_order_of_their_times() -> None:
    timeline = Timeline()

    def note(name: str) -> None:
        for number in range(200):
            timeline.note(f"{name}{number}")

    threads = [threading.Thread(target=note, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = timeline.events()
    assert len(events) == 800
    assert events == sorted(events, key=lambda event: event[0])
    for name in "abcd":
        assert [text for _, text in events if text.startswith(name)] == [f"{name}{number}" for number in range(200)]
