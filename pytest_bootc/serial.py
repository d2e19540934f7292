"""A scheduler for pytest-xdist that keeps the tests of a group on one worker, one after the other.

It speaks the interface that xdist's hook ``pytest_xdist_make_scheduler`` asks for (``xdist.scheduler.protocol``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from pytest_bootc import compat

# A worker begins a test only when it knows the one after it, and one more saves it from waiting for us.
_FEWEST_PENDING = 3


class Node(Protocol):
    """What is needed of xdist's ``WorkerController``."""

    @property
    def shutting_down(self) -> bool:
        """Whether it gets no more tests."""

    def send_runtest_some(self, indices: Sequence[int]) -> None:
        """Have it run tests, by their places in its collection."""

    def shutdown(self) -> None:
        """Have it end when it has run what it has."""


class Scheduling(Protocol):
    """What is needed of the scheduler that ``--dist`` has chosen."""

    @property
    def nodes(self) -> Sequence[Node]:
        """The workers that live."""

    def add_node_collection(self, node: Node, collection: Sequence[str]) -> None:
        """A worker has collected these tests."""

    def schedule(self) -> None:
        """Hand out tests; called when all workers have collected, and again for each that came later."""


class SerialScheduling:
    """The chosen scheduler in all that it does, until it turns out that some tests are in groups."""

    def __init__(self, chosen: Scheduling, groups: Callable[[], Mapping[str, str]]) -> None:
        self._current: Scheduling = chosen
        self._groups = groups
        self._collections: dict[Node, list[str]] | None = {}

    def __getattr__(self, name: str) -> object:
        return getattr(self._current, name)

    def add_node_collection(self, node: Node, collection: Sequence[str]) -> None:
        """A worker has collected these tests."""
        self._current.add_node_collection(node, collection)
        if self._collections is not None:
            self._collections[node] = list(collection)

    def schedule(self) -> None:
        """Hand out tests; the first time, decide who does."""
        if self._collections is not None:
            collections = [self._collections[node] for node in self._current.nodes]
            self._collections = None
            groups = self._groups()
            # Where workers have collected differently, the chosen one says so.
            if groups and all(collection == collections[0] for collection in collections):
                units = units_of(collections[0], groups, compat.scope_of(self._current))
                self._current = UnitScheduling(self._current.nodes, collections[0], units)
        self._current.schedule()


def units_of(
    collection: Sequence[str], groups: Mapping[str, str], scope_of: Callable[[str], str]
) -> list[tuple[int, ...]]:
    """The places of the tests, those together that stay on one worker; each unit where its first test was."""
    units: dict[tuple[bool, str], list[int]] = {}
    for place, nodeid in enumerate(collection):
        key = (True, groups[nodeid]) if nodeid in groups else (False, scope_of(nodeid))
        units.setdefault(key, []).append(place)
    return [tuple(unit) for unit in units.values()]


class UnitScheduling:
    """Hands out units of tests, in their order, to whichever worker has little left."""

    #: It begins when all have collected.
    collection_is_completed = True

    def __init__(self, nodes: Sequence[Node], collection: Sequence[str], units: Sequence[tuple[int, ...]]) -> None:
        self._collection = list(collection)
        self._waiting = deque(units)
        # Units in the order in which they are run; without a collection it is not known yet what a worker can run.
        self._given: dict[Node, list[tuple[int, ...]]] = {node: [] for node in nodes}
        self._ready = set(nodes)

    @property
    def nodes(self) -> list[Node]:
        """The workers that live."""
        return list(self._given)

    @property
    def tests_finished(self) -> bool:
        """Whether each worker has nothing left but the test that it holds back until it is told to end."""
        return not self._waiting and all(self._count(node) < 2 for node in self._given)

    @property
    def has_pending(self) -> bool:
        """Whether any test is left."""
        return bool(self._waiting) or any(self._given.values())

    def add_node(self, node: Node) -> None:
        """A worker has come in the place of one that died."""
        self._given[node] = []

    def add_node_collection(self, node: Node, collection: Sequence[str]) -> None:
        """It has collected; one that found other tests gets none."""
        if list(collection) == self._collection:
            self._ready.add(node)
        else:
            node.shutdown()

    def schedule(self) -> None:
        """Give all workers something to do."""
        # One unit each in turn, so that a few do not take all.
        for _ in range(_FEWEST_PENDING):
            for node in self._given:
                self._supply(node)
        self._dismiss()

    def mark_test_complete(self, node: Node, item_index: int, duration: float = 0) -> None:
        """A worker has run a test."""
        left = (tuple(place for place in unit if place != item_index) for unit in self._given[node])
        self._given[node] = [unit for unit in left if unit]
        self._supply(node)
        self._dismiss()

    def mark_test_pending(self, item: str) -> None:
        """A test is to be run again, by wish of a hook ``pytest_handlecrashitem``."""
        self._waiting.appendleft((self._collection.index(item),))
        self.schedule()

    def remove_node(self, node: Node) -> str | None:
        """A worker has ended, or died: then this is the test during which it did, and others get what was left."""
        left = self._given.pop(node)
        if not left:
            return None
        (crashed, *rest), *others = left
        self._waiting.extendleft(reversed([unit for unit in (tuple(rest), *others) if unit]))
        self.schedule()
        return self._collection[crashed]

    def _count(self, node: Node) -> int:
        return sum(map(len, self._given[node]))

    def _supply(self, node: Node) -> None:
        if self._waiting and node in self._ready and not node.shutting_down and self._count(node) < _FEWEST_PENDING:
            unit = self._waiting.popleft()
            self._given[node].append(unit)
            node.send_runtest_some(list(unit))

    def _dismiss(self) -> None:
        """Have workers end, once there is nothing to be given out."""
        if not self._waiting:
            for node in self._given:
                if node in self._ready and not node.shutting_down:
                    node.shutdown()
