"""What is kept of a test: files in a folder of its own, taken while the machine is as the test left it."""

from pytest_bootc.evidence.record import Circumstances, EvidenceRecord
from pytest_bootc.evidence.reproduction import reproduce_line

__all__ = ["Circumstances", "EvidenceRecord", "reproduce_line"]
