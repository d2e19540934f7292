"""What is kept of a test: files in a folder of its own, taken while the machine is as the test left it."""

from pytest_bootc.evidence.examination import examine_failed_boot
from pytest_bootc.evidence.record import Circumstances, EvidenceRecord
from pytest_bootc.evidence.reproduction import reproduce_line

__all__ = ["Circumstances", "EvidenceRecord", "examine_failed_boot", "reproduce_line"]
