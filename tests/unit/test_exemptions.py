from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from pytest_bootc.errors import Blame, ConfigError
from pytest_bootc.exemptions import Exemption, exemption_for, load_exemptions
from pytest_bootc.model import Finding, Trouble

TODAY = datetime.date(2027, 1, 31)
KEYS = {
    "trouble": '"failed-unit"',
    "pattern": '"ostree-remount.service"',
    "image": '"ghcr.io/projectbluefin/*"',
    "owner": '"somebody@example.org"',
    "tracker": '"https://example.org/issues/1"',
    "expires": "2027-01-31",
}


def text(**changes: str | None) -> str:
    """An exemption in TOML; ``None`` leaves a key out."""
    said = {key: value for key, value in (KEYS | changes).items() if value is not None}
    return "[[exempt]]\n" + "".join(f"{key} = {value}\n" for key, value in said.items())


def load(folder: Path, *texts: str) -> tuple[Exemption, ...]:
    paths = []
    for number, content in enumerate(texts):
        paths.append(folder / f"{number}.toml")
        paths[-1].write_text(content)
    return load_exemptions(paths, TODAY)


def refused(folder: Path, content: str) -> ConfigError:
    """The error; it names the file."""
    with pytest.raises(ConfigError) as caught:
        load(folder, content)
    assert str(folder / "0.toml") in caught.value.brief
    assert caught.value.blame is Blame.USAGE
    assert caught.value.resolution
    caught.value.brief = caught.value.brief.replace(str(folder / "0.toml"), "FILE")
    return caught.value


def test_an_exemption(tmp_path: Path) -> None:
    (exemption,) = load(tmp_path, text())
    assert exemption == Exemption(
        trouble=Trouble.FAILED_UNIT,
        pattern="ostree-remount.service",
        image="ghcr.io/projectbluefin/*",
        owner="somebody@example.org",
        tracker="https://example.org/issues/1",
        expires=TODAY,
    )
    assert str(exemption) == "until 2027-01-31, somebody@example.org, https://example.org/issues/1"


def test_several_files(tmp_path: Path) -> None:
    loaded = load(tmp_path, text(owner='"a"') + text(owner='"b"'), "", text(owner='"c"'))
    assert [exemption.owner for exemption in loaded] == ["a", "b", "c"]
    assert load_exemptions([], TODAY) == ()


@pytest.mark.parametrize("kind", list(Trouble))
def test_every_word_of_trouble(tmp_path: Path, kind: Trouble) -> None:
    (exemption,) = load(tmp_path, text(trouble=f'"{kind.value}"'))
    assert exemption.trouble is kind


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [None, '""', '" \\t"', "[]", "0", "false"])
def test_every_key_is_mandatory(tmp_path: Path, key: str, value: str | None) -> None:
    assert refused(tmp_path, text(**{key: value})).brief == f"FILE, exemption 1: it lacks {key}"


def test_all_that_is_wrong_with_the_keys_is_told_at_once(tmp_path: Path) -> None:
    error = refused(tmp_path, text() + text(owner=None, tracker=None, until="2027-01-31", reason='"x"'))
    assert error.brief == "FILE, exemption 2: it lacks owner, tracker and reason, until means nothing"
    assert refused(tmp_path, text(reason='"x"')).brief == "FILE, exemption 1: reason means nothing"


@pytest.mark.parametrize("key", ["pattern", "image", "owner", "tracker"])
@pytest.mark.parametrize("value", ["5", "true", '["a"]', "2027-01-31", "{ a = 1 }"])
def test_texts_are_texts(tmp_path: Path, key: str, value: str) -> None:
    assert refused(tmp_path, text(**{key: value})).brief == f"FILE, exemption 1: {key} must be text"


@pytest.mark.parametrize(
    "value", ['"2027-01-31"', "2027", "true", "2027-01-31T12:00:00", "2027-01-31T12:00:00Z", "12:00:00"]
)
def test_the_last_day_is_a_date(tmp_path: Path, value: str) -> None:
    assert refused(tmp_path, text(expires=value)).brief.startswith("FILE, exemption 1: expires must be a date, not ")


@pytest.mark.parametrize(
    "value", ['"failed-units"', '"FAILED-UNIT"', '"FAILED_UNIT"', "5", '["failed-unit"]', "{ a = 1 }"]
)
def test_trouble_that_there_is_not(tmp_path: Path, value: str) -> None:
    error = refused(tmp_path, text(trouble=value))
    assert error.brief.startswith("FILE, exemption 1: there is no trouble ")
    assert "failed-unit, stuck-job" in error.resolution


def test_the_last_day_itself_counts(tmp_path: Path) -> None:
    assert len(load(tmp_path, text(expires="2027-01-31") + text(expires="2027-02-01"))) == 2


@pytest.mark.parametrize("day", ["2027-01-30", "2026-12-31", "1970-01-01"])
def test_one_that_has_expired(tmp_path: Path, day: str) -> None:
    error = refused(tmp_path, text() + text(expires=day))
    assert error.brief == f"FILE, exemption 2 has expired on {day}"
    assert error.details == ("failed-unit: ostree-remount.service, somebody@example.org, https://example.org/issues/1")


@pytest.mark.parametrize(
    ("content", "brief"),
    [
        ("[exempt]\ntrouble = 'oom'\n", "FILE: exempt is not [[exempt]]"),
        ("exempt = 5\n", "FILE: exempt is not [[exempt]]"),
        ("exempt = false\n", "FILE: exempt is not [[exempt]]"),
        ("exempt = ['oom']\n", "FILE, exemption 1 is no table"),
        ("[[exemption]]\n[other]\n" + text(), "FILE: exemption, other is not [[exempt]]"),
        ("owner = 'x'\n" + text(), "FILE: owner is not [[exempt]]"),
        ("exempt", "the exemptions in FILE cannot be read"),
        ('[[exempt]]\nowner = "x"\nowner = "y"\n', "the exemptions in FILE cannot be read"),
        ("[[exempt]]\nexpires = 2027-02-30\n", "the exemptions in FILE cannot be read"),
    ],
)
def test_what_is_no_file_of_exemptions(tmp_path: Path, content: str, brief: str) -> None:
    assert refused(tmp_path, content).brief == brief


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for path in (tmp_path / "nothing", tmp_path, binary):
        with pytest.raises(ConfigError) as caught:
            load_exemptions([path], TODAY)
        assert caught.value.brief == f"the exemptions in {path} cannot be read"
        assert caught.value.details
        assert "[[exempt]]" in caught.value.resolution


@pytest.mark.parametrize(
    ("pattern", "found", "covered"),
    [
        ("a.service", "a.service", True),
        ("a.service", "aa.service", False),
        ("a.service", "a.service2", False),
        ("a.service", "A.service", False),
        ("a*.service", "abc.service", True),
        ("a@?.service", "a@1.service", True),
        ("a@?.service", "a@12.service", False),
        ("a@[12].service", "a@2.service", True),
        ("a@[!12].service", "a@2.service", False),
        ("*", "", True),
        ("*oom*", "line one\nwith oom", True),
        ("a.b", "axb", False),
    ],
)
def test_patterns_of_the_finding(tmp_path: Path, pattern: str, found: str, covered: bool) -> None:  # noqa: FBT001
    (exemption,) = load(tmp_path, text(pattern=f'"{pattern}"', image='"*"'))
    assert exemption.covers(Finding(Trouble.FAILED_UNIT, found), "h.example/a:v1") is covered


@pytest.mark.parametrize(
    ("image", "covered"),
    [
        ("ghcr.io/projectbluefin/bluefin:testing", True),
        ("ghcr.io/projectbluefin/sub/bluefin@sha256:00", True),
        ("ghcr.io/PROJECTBLUEFIN/bluefin:testing", False),
        ("evil.example/ghcr.io/projectbluefin/bluefin", False),
        ("", False),
    ],
)
def test_only_of_its_images(tmp_path: Path, image: str, covered: bool) -> None:  # noqa: FBT001
    (exemption,) = load(tmp_path, text())
    assert exemption.covers(Finding(Trouble.FAILED_UNIT, "ostree-remount.service"), image) is covered


def test_only_of_its_kind(tmp_path: Path) -> None:
    (exemption,) = load(tmp_path, text(pattern='"*"', image='"*"'))
    for kind in Trouble:
        assert exemption.covers(Finding(kind, "x"), "a") is (kind is Trouble.FAILED_UNIT)


def test_the_first_that_covers_it(tmp_path: Path) -> None:
    loaded = load(
        tmp_path, text(owner='"other"', trouble='"oom"'), text(owner='"one"'), text(owner='"two"', pattern='"*"')
    )
    image = "ghcr.io/projectbluefin/bluefin"
    for unit, owner in (("ostree-remount.service", "one"), ("a.service", "two")):
        exemption = exemption_for(Finding(Trouble.FAILED_UNIT, unit), image, loaded)
        assert exemption is not None
        assert exemption.owner == owner
    assert exemption_for(Finding(Trouble.AVC, "x"), image, loaded) is None
    assert exemption_for(Finding(Trouble.FAILED_UNIT, "x"), image, ()) is None
