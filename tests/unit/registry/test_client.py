import pytest

from pytest_bootc.deadline import Deadline
from pytest_bootc.registry.client import Client
from pytest_bootc.registry.configuration import Place, canonical


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("ghcr.io/owner/name", "https://ghcr.io/v2/owner/name"),
        ("registry.example:8443/a", "https://registry.example:8443/v2/a"),
        ("docker.io/library/debian", "https://registry-1.docker.io/v2/library/debian"),
        ("docker.io/debian", "https://registry-1.docker.io/v2/library/debian"),
        ("index.docker.io/owner/name", "https://registry-1.docker.io/v2/owner/name"),
        ("localhost/a", "http://localhost/v2/a"),
        ("localhost:5000/a", "http://localhost:5000/v2/a"),
        ("127.0.0.1:5000/a/b", "http://127.0.0.1:5000/v2/a/b"),
        ("127.9.9.9/a", "http://127.9.9.9/v2/a"),
        ("[::1]:5000/a", "http://[::1]:5000/v2/a"),
        # Plain HTTP is for this machine alone, however much a name looks like it.
        ("128.0.0.1:5000/a", "https://128.0.0.1:5000/v2/a"),
        ("127.0.0.1.example/a", "https://127.0.0.1.example/v2/a"),
        ("localhost.example/a", "https://localhost.example/v2/a"),
        ("[::2]/a", "https://[::2]/v2/a"),
        ("10.0.0.1/a", "https://10.0.0.1/v2/a"),
    ],
)
def test_base_url(name: str, url: str) -> None:
    assert Client(Place(canonical(name))).base(Deadline.after(1)) == url
