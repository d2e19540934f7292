"""The scheduler of serial tests, with workers that only remember what they are given."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_bootc.serial import SerialScheduling, UnitScheduling, units_of

COLLECTION = ["a::1", "a::2", "b::1", "b::2", "c::1", "c::2"]
GROUPS = {"a::2": "x", "b::2": "x", "c::2": "x"}


class Worker:
    def __init__(self) -> None:
        self.given: list[int] = []
        self.shutting_down = False

    def send_runtest_some(self, indices: Sequence[int]) -> None:
        assert not self.shutting_down
        self.given += indices

    def shutdown(self) -> None:
        self.shutting_down = True


class Chosen:
    """A scheduler that keeps files together."""

    def __init__(self, nodes: Sequence[Worker]) -> None:
        self.nodes = list(nodes)
        self.collections: dict[Worker, Sequence[str]] = {}
        self.scheduled = 0

    def add_node_collection(self, node: Worker, collection: Sequence[str]) -> None:
        self.collections[node] = collection

    def schedule(self) -> None:
        self.scheduled += 1

    def _split_scope(self, nodeid: str) -> str:
        return nodeid[0]


@pytest.fixture
def workers() -> tuple[Worker, Worker]:
    return Worker(), Worker()


def test_units_stand_where_their_first_test_was() -> None:
    assert units_of(COLLECTION, GROUPS, str) == [(0,), (1, 3, 5), (2,), (4,)]
    assert units_of(COLLECTION, {"b::2": "x"}, lambda nodeid: nodeid[0]) == [(0, 1), (2,), (3,), (4, 5)]


def test_a_group_is_no_scope_of_the_same_name() -> None:
    assert units_of(COLLECTION, {"a::1": "b"}, lambda nodeid: nodeid[0]) == [(0,), (1,), (2, 3), (4, 5)]


def test_without_groups_the_chosen_one_does_it(workers: tuple[Worker, Worker]) -> None:
    chosen = Chosen(workers)
    scheduling = SerialScheduling(chosen, dict)
    for worker in workers:
        scheduling.add_node_collection(worker, COLLECTION)
    scheduling.schedule()
    scheduling.schedule()
    assert chosen.scheduled == 2
    assert chosen.collections.keys() == set(workers)
    assert scheduling.nodes == list(workers)


def test_with_groups_what_the_chosen_one_keeps_together_stays_so(workers: tuple[Worker, Worker]) -> None:
    chosen = Chosen(workers)
    scheduling = SerialScheduling(chosen, lambda: {"b::2": "x", "c::1": "x"})
    for worker in workers:
        scheduling.add_node_collection(worker, COLLECTION)
    scheduling.schedule()
    assert chosen.scheduled == 0
    assert [worker.given for worker in workers] == [[0, 1, 3, 4], [2, 5]]


def test_work_goes_to_who_has_little_left(workers: tuple[Worker, Worker]) -> None:
    first, second = workers
    scheduling = UnitScheduling(workers, [str(number) for number in range(9)], [(number,) for number in range(9)])
    scheduling.schedule()
    assert (first.given, second.given) == ([0, 2, 4], [1, 3, 5])
    assert scheduling.has_pending
    assert not scheduling.tests_finished
    scheduling.mark_test_complete(second, 1)
    scheduling.mark_test_complete(second, 3)
    assert second.given == [1, 3, 5, 6, 7]
    assert not first.shutting_down
    scheduling.mark_test_complete(first, 0)
    assert first.given == [0, 2, 4, 8]
    assert first.shutting_down
    assert second.shutting_down
    for number in (2, 4):
        scheduling.mark_test_complete(first, number)
    for number in (5, 6):
        scheduling.mark_test_complete(second, number)
    assert scheduling.tests_finished  # each holds its last one back until it is told that there is no other
    scheduling.mark_test_complete(first, 8)
    assert scheduling.remove_node(first) is None
    assert scheduling.has_pending
    scheduling.mark_test_complete(second, 7)
    assert not scheduling.has_pending


def test_the_place_of_a_worker_that_dies(workers: tuple[Worker, Worker]) -> None:
    first, second = workers
    scheduling = UnitScheduling(workers, COLLECTION, [(0, 1, 2, 3), (4,), (5,)])
    scheduling.schedule()
    assert first.shutting_down  # nothing is left
    scheduling.mark_test_complete(first, 0)
    assert scheduling.remove_node(first) == "a::2"
    assert scheduling.nodes == [second]
    heir, stranger = Worker(), Worker()
    for worker in (heir, stranger):
        scheduling.add_node(worker)
    scheduling.schedule()
    assert heir.given == [], "it got a test before it had collected any"
    scheduling.add_node_collection(stranger, ["other::1"])
    scheduling.add_node_collection(heir, COLLECTION)
    scheduling.schedule()
    assert (heir.given, stranger.given, stranger.shutting_down) == ([2, 3], [], True)


def test_a_test_that_is_wished_again(workers: tuple[Worker, Worker]) -> None:
    scheduling = UnitScheduling(workers, COLLECTION, [(number,) for number in range(6)])
    scheduling.add_node(heir := Worker())
    scheduling.schedule()
    assert scheduling.remove_node(workers[0]) == "a::1"
    scheduling.mark_test_pending("a::1")
    scheduling.add_node_collection(heir, COLLECTION)
    scheduling.schedule()
    assert heir.given == [0, 2, 4]
