"""registries.conf: which places an image is looked for in."""

from __future__ import annotations

import pytest

from pytest_bootc.errors import ConfigError
from pytest_bootc.image import Digest, ImageReference
from pytest_bootc.registry.configuration import Place, places

DIGEST = Digest.of(b"")


@pytest.fixture(autouse=True)
def conf(home, monkeypatch):
    """The one configuration file there is."""
    path = home / "registries.conf"
    path.write_text("")
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(path))
    return path


def found(text: str) -> list[str]:
    return [f"{place.name}{' insecure' if place.insecure else ''}" for place in places(ImageReference.parse(text))]


def test_nothing_is_configured():
    assert places(ImageReference.parse("r.example/a")) == (Place("r.example/a"),)
    assert found("docker.io/debian") == ["docker.io/library/debian"]
    assert found("index.docker.io/team/a") == ["docker.io/team/a"]


def test_mirrors_come_first_and_in_their_order(conf):
    conf.write_text(
        """
        unqualified-search-registries = ["example.com"]
        [[registry]]
        prefix = "example.com/foo"
        location = "internal.example/bar"
        [[registry.mirror]]
        location = "mirror-0.example/mirror-for-foo"
        [[registry.mirror]]
        location = "mirror-1.example/mirrors/foo"
        insecure = true
        """
    )
    assert found("example.com/foo/image:latest") == [
        "mirror-0.example/mirror-for-foo/image",
        "mirror-1.example/mirrors/foo/image insecure",
        "internal.example/bar/image",
    ]
    assert found("example.com/foo:latest")[-1] == "internal.example/bar"
    assert found("example.com/foobar") == ["example.com/foobar"]
    assert found("example.com/other") == ["example.com/other"]


PREFIXES = """
[[registry]]
location = "r.example"
insecure = true
[[registry]]
prefix = "r.example/team"
location = "team.example/t"
[[registry]]
prefix = "r.example/team/image:v1"
location = "pinned.example/v1/image"
[[registry]]
prefix = "*.wild.example"
location = "inner.example/w"
[[registry]]
prefix = "*.deep.wild.example"
[[registry]]
prefix = "docker.io/library/debian"
location = "hub.example/debian"
[[registry]]
prefix = "docker.io"
location = "hub.example"
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("r.example/a", "r.example/a insecure"),
        ("r.example:5000/a", "r.example:5000/a insecure"),  # the man page's separators are / : @
        ("r.example.org/a", "r.example.org/a"),
        ("r.example/team/a", "team.example/t/a"),
        ("r.example/teams", "r.example/teams insecure"),
        ("r.example/team/image", "team.example/t/image"),
        ("r.example/team/image:v1", "pinned.example/v1/image"),
        ("r.example/team/image:v11", "team.example/t/image"),
        ("a.wild.example/x", "inner.example/w/x"),
        ("a.b.wild.example/x", "inner.example/w/x"),
        ("a.deep.wild.example/x", "a.deep.wild.example/x"),
        ("wild.example/x", "wild.example/x"),
        ("notwild.example/x", "notwild.example/x"),
        ("other.example/a.wild.example/x", "other.example/a.wild.example/x"),
        ("docker.io/debian", "hub.example/debian"),
        ("docker.io/alpine", "hub.example/library/alpine"),
        ("docker.io/team/a", "hub.example/team/a"),
    ],
)
def test_the_longest_prefix_counts(conf, name, expected):
    conf.write_text(PREFIXES)
    assert found(name) == [expected]


@pytest.mark.parametrize(
    ("setting", "mirror", "by_tag", "by_digest"),
    [
        ("", "", 2, 2),
        ("mirror-by-digest-only = true", "", 1, 2),
        ("", 'pull-from-mirror = "all"', 2, 2),
        ("", 'pull-from-mirror = "digest-only"', 1, 2),
        ("", 'pull-from-mirror = "tag-only"', 2, 1),
    ],
)
def test_what_a_mirror_is_used_for(conf, setting, mirror, by_tag, by_digest):
    conf.write_text(
        f'[[registry]]\nlocation = "r.example"\n{setting}\n[[registry.mirror]]\nlocation = "m.example"\n{mirror}\n'
    )
    assert len(found("r.example/a:v1")) == by_tag
    assert len(found(f"r.example/a@{DIGEST}")) == len(found(f"r.example/a:v1@{DIGEST}")) == by_digest


def test_a_blocked_name(conf):
    conf.write_text('[[registry]]\nprefix = "r.example/bad"\nlocation = "r.example/bad"\nblocked = true\n')
    with pytest.raises(ConfigError, match=r"images from r\.example/bad are blocked on this host") as caught:
        found("r.example/bad/a")
    assert str(conf) in caught.value.details
    assert found("r.example/good") == ["r.example/good"]


def test_the_first_version_of_the_format(conf):
    conf.write_text(
        "[registries.insecure]\nregistries = ['r.example']\n[registries.block]\nregistries = ['b.example']\n"
    )
    assert found("r.example/a") == ["r.example/a insecure"]
    with pytest.raises(ConfigError, match="blocked"):
        found("b.example/a")


def test_the_files_and_their_order(home, conf, monkeypatch):
    def write(name: str, location: str, prefix: str = "r.example") -> None:
        path = home / ".config/containers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'[[registry]]\nprefix = "{prefix}"\nlocation = "{location}"\n')

    conf.write_text('[[registry]]\nprefix = "r.example"\nlocation = "environment.example"\n')
    write("registries.conf", "user.example")
    assert found("r.example/a") == ["environment.example/a"]
    write("registries.conf.d/10-first.conf", "first.example")
    write("registries.conf.d/20-second.conf", "second.example")
    write("registries.conf.d/30-other.conf", "other.example", "o.example")
    write("registries.conf.d/40-ignored.toml", "ignored.example")
    assert found("r.example/a") == ["second.example/a"]
    monkeypatch.delenv("CONTAINERS_REGISTRIES_CONF")
    (home / ".config/containers/registries.conf.d/10-first.conf").unlink()
    (home / ".config/containers/registries.conf.d/20-second.conf").unlink()
    assert found("r.example/a") == ["user.example/a"]
    assert found("o.example/a") == ["other.example/a"]
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "elsewhere"))
    assert "user.example/a" not in found("r.example/a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[registry]\n", "line 1"),
        (b"\xff", "utf-8"),
        ("registry = 1", "registry is not a list of tables"),
        ("[registry]\nlocation = 'a'", "registry is not a list of tables"),
        ("[[registry]]\n", "[[registry]] 1 has no location"),
        ("[[registry]]\nlocation = 'a'\n[[registry]]\nlocation = 1", "[[registry]] 2, location is not a text"),
        ("[[registry]]\nlocation = 'http://a'", "[[registry]] 1, location is not HOST[:PORT][/PATH]"),
        ("[[registry]]\nlocation = 'a'\ninsecure = 'yes'", "[[registry]] 1, insecure is not true or false"),
        ("[[registry]]\nlocation = 'a'\nblocked = 1", "[[registry]] 1, blocked is not true or false"),
        ("[[registry]]\nlocation = 'a'\n[[registry.mirror]]", "[[registry]] 1, [[mirror]] 1 has no location"),
        (
            "[[registry]]\nlocation = 'a'\n[[registry.mirror]]\nlocation = 'b'\npull-from-mirror = 'x'",
            "[[registry]] 1, [[mirror]] 1: pull-from-mirror is none of all, digest-only, tag-only",
        ),
        ("[registries]\ninsecure = 1", "[registries], insecure is not a table"),
        ("[registries.insecure]\nregistries = 'a'", "[registries], [insecure], registries is not a list of texts"),
    ],
)
def test_a_malformed_file(conf, content, message):
    conf.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=f"{conf} is malformed") as caught:
        found("r.example/a")
    assert message in caught.value.details
    assert "CONTAINERS_REGISTRIES_CONF" in caught.value.resolution


def test_a_file_that_is_not_there(conf):
    conf.unlink()
    with pytest.raises(ConfigError, match=f"{conf} cannot be read") as caught:
        found("r.example/a")
    assert "No such file" in caught.value.details


def test_a_location_that_loses_the_path(conf):
    conf.write_text('[[registry]]\nprefix = "r.example/a"\nlocation = "m.example"\n')
    with pytest.raises(ConfigError, match="is malformed") as caught:
        found("r.example/a")
    assert "it leads from r.example/a to m.example, which has no path" in caught.value.details
