"""Requests that end before a deadline, though parts of them know none: name look-up, TLS handshake, slow headers."""

from __future__ import annotations

import threading
from collections.abc import Callable

import requests

from pytest_bootc.deadline import Deadline


class _Attempt(threading.Thread):
    """One request in a thread of its own, which is left to itself where nobody waits for it any more."""

    def __init__(self, send: Callable[[], requests.Response]) -> None:
        super().__init__(name="request", daemon=True)
        self._send = send
        self._lock = threading.Lock()
        self._abandoned = False
        self.response: requests.Response | None = None
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            response = self._send()
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            self.failure = error
            return
        with self._lock:
            self.response = response
            if self._abandoned:
                response.close()

    def abandon(self) -> None:
        """Wait no more."""
        with self._lock:
            self._abandoned = True
            if self.response is not None:
                self.response.close()


def before(deadline: Deadline, send: Callable[[], requests.Response]) -> requests.Response:
    """What ``send`` returns, an answer whose body has not been read yet.

    :raises requests.RequestException: the request failed; :class:`requests.Timeout`: the deadline has passed.
    """
    attempt = _Attempt(send)
    attempt.start()
    try:
        attempt.join(deadline.remaining())
    except BaseException:
        attempt.abandon()
        raise
    if attempt.failure is not None:
        raise attempt.failure
    if attempt.is_alive() or attempt.response is None:
        attempt.abandon()
        raise requests.Timeout(f"no answer within {deadline.seconds:g} s")
    return attempt.response
