import pytest

from pytest_bootc.registry.challenge import Challenge, parse_challenges

HUB = {"realm": "https://auth.docker.io/token", "service": "registry.docker.io", "scope": "repository:a/b:pull"}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="Registry Realm"', [("basic", {"realm": "Registry Realm"})]),
        ("BASIC REALM=plain", [("basic", {"realm": "plain"})]),
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull"',
            [("bearer", HUB)],
        ),
        (
            'Bearer realm = "https://t/token" ,\tservice="x" , scope="repository:a/b:pull"',
            [("bearer", {"realm": "https://t/token", "service": "x", "scope": "repository:a/b:pull"})],
        ),
        # A comma and an equals sign within quotes end nothing.
        (
            'Bearer realm="https://t/?a=b,c",scope="repository:a:pull,push"',
            [("bearer", {"realm": "https://t/?a=b,c", "scope": "repository:a:pull,push"})],
        ),
        (r'Basic realm="a \"quoted\" \\ word"', [("basic", {"realm": r'a "quoted" \ word'})]),
        ("Bearer realm=https://t/token,service=x", [("bearer", {"realm": "https://t/token", "service": "x"})]),
        # Several at once, in one header or joined.
        (
            'Basic realm="one", Bearer realm="https://t",service="two"',
            [("basic", {"realm": "one"}), ("bearer", {"realm": "https://t", "service": "two"})],
        ),
        ("Negotiate, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ("Negotiate YIIabc==, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        (",, Basic realm=x,", [("basic", {"realm": "x"})]),
        # What is said first counts, and what belongs to no scheme to nothing.
        ("Basic realm=a, realm=b", [("basic", {"realm": "a"})]),
        ("realm=lost", []),
        ('Bearer realm="no end', [("bearer", {})]),
        ("=== ???", []),
    ],
)
def test_challenges(header, expected):
    assert parse_challenges(header) == tuple(Challenge(*challenge) for challenge in expected)


@pytest.mark.parametrize("hostile", ["a" * 60_000, '"' * 60_000, "a=" * 30_000, 'a="' + "\\" * 60_000, ", " * 30_000])
def test_hostile_headers_take_no_time(hostile):
    assert len(parse_challenges(f"Bearer {hostile}")) < 60_000
