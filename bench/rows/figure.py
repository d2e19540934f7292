"""One line of the table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """What was measured, beside what it is to be: ``value`` and ``wanted`` in ``unit``, ``details`` for the rest."""

    name: str
    value: float
    unit: str
    wanted: float
    details: str = ""

    def __str__(self) -> str:
        met = "met" if self.value <= self.wanted else "MISSED" if self.value > 1.5 * self.wanted else "missed"
        return f"{self.name:58} {self.value:8.2f} {self.unit:4} (<= {self.wanted:g}: {met})  {self.details}"
