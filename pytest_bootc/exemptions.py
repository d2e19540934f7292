"""Trouble that is known, and for how long it may be: the exemptions of a run.

They are TOML files. Whoever exempts something says who cares for it and until when::

    [[exempt]]
    trouble = "failed-unit"                 # a word of Trouble
    pattern = "ostree-remount.service"      # of the finding's text, as fnmatch(3) has it: * and ?
    image = "ghcr.io/projectbluefin/*"      # of the image reference, likewise
    owner = "somebody@example.org"
    tracker = "https://github.com/projectbluefin/bluefin/issues/1"
    expires = 2027-01-31                    # the last day on which it holds

All six are mandatory. What an exemption covered is told in the report.
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path

from pytest_bootc.errors import ConfigError
from pytest_bootc.model import Finding, Trouble

_TABLE = "exempt"
_HOW = "write trouble, pattern, image, owner, tracker and expires in each [[exempt]]; docs/how-to.md has an example"


@dataclass(frozen=True)
class Exemption:
    """One piece of trouble that does not count."""

    trouble: Trouble
    pattern: str
    image: str
    owner: str
    tracker: str
    expires: datetime.date

    def covers(self, finding: Finding, image: str) -> bool:
        """Whether the finding, in a guest of that image, is what it exempts."""
        return (
            finding.kind is self.trouble and fnmatchcase(finding.text, self.pattern) and fnmatchcase(image, self.image)
        )

    def __str__(self) -> str:
        return f"until {self.expires}, {self.owner}, {self.tracker}"


def load_exemptions(paths: Iterable[Path], today: datetime.date) -> tuple[Exemption, ...]:
    """All exemptions of these files.

    :raises ConfigError: a file cannot be read, or an exemption is incomplete, means nothing, or has expired.
    """
    return tuple(exemption for path in paths for exemption in _load(path, today))


def exemption_for(finding: Finding, image: str, exemptions: Sequence[Exemption]) -> Exemption | None:
    """The first exemption that covers the finding."""
    return next((exemption for exemption in exemptions if exemption.covers(finding, image)), None)


def _load(path: Path, today: datetime.date) -> list[Exemption]:
    try:
        said = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"the exemptions in {path} cannot be read", details=str(error), resolution=_HOW) from error
    strangers = sorted(said.keys() - {_TABLE})
    entries = said.get(_TABLE, [])
    if strangers or not isinstance(entries, list):
        names = ", ".join(strangers) or _TABLE
        raise ConfigError(f"{path}: {names} is not [[{_TABLE}]]", resolution=_HOW)
    return [_read(entry, f"{path}, exemption {number}", today) for number, entry in enumerate(entries, 1)]


def _read(said: object, place: str, today: datetime.date) -> Exemption:
    names = [field.name for field in fields(Exemption)]
    if not isinstance(said, Mapping):
        raise ConfigError(f"{place} is no table", resolution=_HOW)
    missing = [name for name in names if not str(said.get(name) or "").strip()]
    strangers = sorted(said.keys() - set(names))
    if missing or strangers:
        told = [f"it lacks {', '.join(missing)}"] * bool(missing) + [f"{', '.join(strangers)} means nothing"] * bool(
            strangers
        )
        raise ConfigError(f"{place}: {' and '.join(told)}", resolution=_HOW)
    words = {name: said[name] for name in names if name not in ("trouble", "expires")}
    wrong = [name for name, value in words.items() if not isinstance(value, str)]
    expires = said["expires"]
    if wrong or type(expires) is not datetime.date:
        what = f"{', '.join(wrong)} must be text" if wrong else f"expires must be a date, not {expires!r}"
        raise ConfigError(f"{place}: {what}", resolution=_HOW)
    if said["trouble"] not in [kind.value for kind in Trouble]:
        raise ConfigError(
            f"{place}: there is no trouble {said['trouble']!r}",
            resolution=f"choose one of {', '.join(kind.value for kind in Trouble)}",
        )
    if expires < today:
        raise ConfigError(
            f"{place} has expired on {expires}",
            details=f"{said['trouble']}: {said['pattern']}, {said['owner']}, {said['tracker']}",
            resolution="mend what it exempts, or have its owner give it another date",
        )
    return Exemption(trouble=Trouble(said["trouble"]), expires=expires, **words)
