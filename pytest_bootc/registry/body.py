"""The bodies of a registry's answers, read before a deadline, and what of an answer an error may show."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import requests
import urllib3

from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import RegistryError
from pytest_bootc.source import CHUNK

#: What may be raised while a body is read.
BROKEN = (urllib3.exceptions.HTTPError, OSError)


def pieces(response: requests.Response, deadline: Deadline) -> Iterator[bytes]:
    """The body as it comes in, so that a slow trickle cannot outlast the deadline.

    :raises RegistryError: the deadline has passed.
    """
    # Without requests' own decoding: digests are of what is stored.
    while piece := response.raw.read1(CHUNK, decode_content=False):
        yield piece
        if deadline.expired():
            raise RegistryError(f"{without_query(response.url)} took more than {deadline.seconds:g} s")


def without_query(url: str) -> str:
    """A URL as errors show it: what gives access to signed ones stands in their queries."""
    return urlsplit(url)._replace(query="", fragment="").geturl()


def reason(error: BaseException) -> str:
    """What is at the bottom of an error of requests or urllib3, which show whole URLs."""
    below = getattr(error, "reason", None)
    if not isinstance(below, Exception):
        below = next((part for part in error.args if isinstance(part, Exception)), None)
    return str(error) if below is None else reason(below)
