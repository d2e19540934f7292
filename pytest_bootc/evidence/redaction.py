"""Taking secrets out of text that is kept: what stands behind words like *password*, in URLs, and private keys.

What a program prints without any such word cannot be told from other text, and stays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_HIDDEN = "[hidden]"
_WORDS = (
    r"(?:pass(?:word|wd|phrase|code)|secret|token|credential|api[_-]?key|access[_-]?key|private[_-]?key|auth[_-]?key)"
)
# Nothing that a name or a path merely contains: /etc/passwd:, systemd-ask-password-wall.path.
_NAMED = re.compile(
    rf"((?<![/.]){_WORDS}[\w-]*[\"']?(?:=|:\s?|\s[=:]\s))(\"[^\"\n]*\"|'[^'\n]*'|[^\s\"',;&]+)", re.IGNORECASE
)
_OPTION = re.compile(rf"((?:^|\s)--?[\w-]*{_WORDS}[\w-]*\s+)(?!-)(\S+)", re.IGNORECASE | re.MULTILINE)
_OPTION_ALONE = re.compile(rf"--?[\w-]*{_WORDS}[\w-]*", re.IGNORECASE)
_ASSIGNED = re.compile(rf"([\w-]*{_WORDS}[\w-]*=).+", re.IGNORECASE | re.DOTALL)
_HEADER = re.compile(r"(authorization[\"']?\s*[:=]\s*[\"']?(?:\w+\s+)?)([^\s\"']+)", re.IGNORECASE)
_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://)([^\s/@\"']*:[^\s/@\"']*|[^\s/@:\"']{20,})@", re.IGNORECASE)
_KEY_BLOCK = re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_KNOWN_SHAPE = re.compile(r"\b(?:gh[oprsu]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|AKIA[0-9A-Z]{16})\b")


def redact(text: str) -> str:
    """The text without what looks like a secret; each leaves ``[hidden]``."""
    text = _KEY_BLOCK.sub(rf"\1{_HIDDEN}\2", text)
    text = _IN_URL.sub(rf"\1{_HIDDEN}@", text)
    # The header first: its scheme (Basic, Bearer) would pass for the value.
    text = _HEADER.sub(rf"\1{_HIDDEN}", text)
    text = _NAMED.sub(rf"\1{_HIDDEN}", text)
    text = _OPTION.sub(rf"\1{_HIDDEN}", text)
    return _KNOWN_SHAPE.sub(_HIDDEN, text)


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command; what is behind ``--password`` and the like is hidden whole."""
    shown: list[str] = []
    hide = False
    for argument in arguments:
        if hide and not argument.startswith("-"):
            shown.append(_HIDDEN)
        elif assigned := _ASSIGNED.fullmatch(argument):
            shown.append(f"{assigned[1]}{_HIDDEN}")
        else:
            shown.append(redact(argument))
        hide = _OPTION_ALONE.fullmatch(argument) is not None
    return shown
