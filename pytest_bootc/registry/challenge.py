"""What a registry says it wants to be shown: the header ``WWW-Authenticate`` (RFC 9110, section 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# Values that are neither quoted nor a token are seen in the field: realm=https://example.com/token
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"=]+))')
_SCHEME = re.compile(rf"({_TOKEN})(?=[ \t,]|$)")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True)
class Challenge:
    """One way to be let in: the scheme in lower case (``basic``, ``bearer``) and its parameters by lower-case names."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """All challenges of a header, or of several that were joined by commas. What cannot be read is left out."""
    found: list[tuple[str, dict[str, str]]] = []
    at = 0
    while at < len(header):
        if header[at] in ", \t":
            at += 1
        elif parameter := _PARAMETER.match(header, at):
            name, quoted, plain = parameter.groups()
            if found:
                found[-1][1].setdefault(name.lower(), plain if quoted is None else _ESCAPED.sub(r"\1", quoted))
            at = parameter.end()
        elif scheme := _SCHEME.match(header, at):
            found.append((scheme[1].lower(), {}))
            at = scheme.end()
        else:  # a token68, as Negotiate has, or garbage
            comma = header.find(",", at)
            at = len(header) if comma < 0 else comma
    return tuple(Challenge(scheme, parameters) for scheme, parameters in found)
