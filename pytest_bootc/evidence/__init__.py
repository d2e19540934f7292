"""What is kept of a test: files in a folder of its own, taken while the machine is as the test left it."""

from pytest_bootc.evidence.record import EvidenceRecord, GuestShell, journal_since, slug

__all__ = ["EvidenceRecord", "GuestShell", "journal_since", "slug"]
