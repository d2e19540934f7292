"""What must never be red: machines that boot well are not suspected of anything."""

from __future__ import annotations

import pytest
from harness import Bed, Book

pytestmark = [pytest.mark.integration, pytest.mark.qemu, pytest.mark.slow]

# Layers of every compression, units that were skipped, more programs and profiles, small and large machines.
IMAGES = ("server", "server-128", "skipped-unit", "coredump-apparmor")
SHAPES = (("--vm-cpus=1", "--vm-memory=512"), ("--vm-cpus=2", "--vm-memory=1536"), ("--vm-cpus=4", "--vm-memory=3G"))
BOOTS = 51
TESTS = """
import time
import pytest

@pytest.mark.parametrize("boot", range({boots}))
def test_it_boots_well(vm, guest, boot):
    assert guest.boot_id()
    # Its watch has read the whole console, and reads on.
    time.sleep(1)
    assert vm.findings() == []
    vm.condemn()
"""


@pytest.mark.parametrize("shape", SHAPES, ids=" ".join)
def test_boots_that_are_clean_alarm_never(shape: tuple[str, ...], bed: Bed, book: Book) -> None:
    boots = BOOTS // len(SHAPES)
    each = -(-boots // len(IMAGES))
    images = [f"--image={book.image(name)}" for name in IMAGES[1:]]
    with bed.run(book.image(IMAGES[0]), TESTS.format(boots=each), "--cold", *images, *shape) as running:
        ended = running.end()
    assert (ended.status, list(ended.states.values())) == (0, ["pass"] * each * len(IMAGES)), ended.text[-6000:]
    assert "run once more" not in ended.text
    assert bed.await_nothing() == []
