"""Registries with TLS: authorities of one's own, client certificates, and connections that cannot be trusted."""

from __future__ import annotations

import shutil

import pytest

from pytest_bootc.errors import ConfigError, RegistryError

pytestmark = pytest.mark.integration

TARS = [b"1" * 512]


@pytest.fixture
def authority(certify):
    return certify("authority")


@pytest.fixture
def secured(make_registry, oci_layout, certify, authority):
    """Start a registry with TLS, with an image in it; the image's name comes back."""

    def start(**tls):
        plain = make_registry()
        plain.push(oci_layout.path, oci_layout.image(*TARS), "server", "v1")
        pair = certify("server", authority)
        files = {"certificate": str(pair.certificate_file), "key": str(pair.key_file)}
        return f"{make_registry(plain.folder, tls=files | tls).host}/server:v1"

    return start


@pytest.fixture
def certs_d(home):
    """The folder for the certificates of the registry that a name is in."""

    def make(name: str):
        folder = home / ".config/containers/certs.d" / name.partition("/")[0]
        folder.mkdir(parents=True)
        return folder

    return make


def test_an_authority_of_ones_own(secured, certs_d, authority, pull):
    name = secured()
    shutil.copy(authority.certificate_file, certs_d(name) / "ca.crt")
    assert pull(name) == TARS


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_an_authority_by_a_variable(secured, certs_d, authority, pull, monkeypatch, variable):
    name = secured()
    certs_d(name)
    monkeypatch.setenv(variable, str(authority.certificate_file))
    assert pull(name) == TARS


def test_an_authority_that_nobody_trusts(secured, certs_d, resolve):
    name = secured()
    certs_d(name)
    with pytest.raises(RegistryError, match=r"no TLS connection to 127\.0\.0\.1:[0-9]+ that can be trusted") as caught:
        resolve(name)
    assert "certificate verify failed" in caught.value.details
    host = name.partition("/")[0]
    assert f"/etc/containers/certs.d/{host}/ca.crt, or name it in SSL_CERT_FILE" in caught.value.resolution


def test_an_insecure_registry(secured, certs_d, pull, home):
    name = secured()
    host = name.partition("/")[0]
    (home / "registries.conf").write_text(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n')
    assert pull(name) == TARS


def test_a_registry_without_tls_where_tls_is_expected(registry, certs_d, resolve):
    certs_d(f"{registry.host}/a")
    with pytest.raises(RegistryError, match="no TLS connection to") as caught:
        resolve(f"{registry.host}/a:v1")
    assert "insecure = true" in caught.value.resolution


def test_a_certificate_for_the_client(secured, certs_d, certify, authority, pull):
    name = secured(clientcas=[str(authority.certificate_file)])
    folder = certs_d(name)
    shutil.copy(authority.certificate_file, folder / "ca.crt")
    with pytest.raises(RegistryError):
        pull(name)
    client = certify("client", authority)
    shutil.copy(client.certificate_file, folder / "client.cert")
    shutil.copy(client.key_file, folder / "client.key")
    assert pull(name) == TARS


def test_files_that_cannot_be_used(secured, certs_d, certify, authority, resolve):
    name = secured()
    folder = certs_d(name)
    (folder / "ca.crt").write_text("junk")
    with pytest.raises(ConfigError, match=r"the certificates in .*ca\.crt cannot be used") as caught:
        resolve(name)
    assert "PEM" in caught.value.resolution
    shutil.copy(authority.certificate_file, folder / "ca.crt")
    shutil.copy(certify("client", authority).certificate_file, folder / "client.cert")
    with pytest.raises(ConfigError, match=r"client\.cert cannot be used with client\.key"):
        resolve(name)
    shutil.copy(certify("other", authority).key_file, folder / "client.key")
    with pytest.raises(ConfigError, match=r"client\.cert cannot be used with client\.key"):
        resolve(name)


def test_another_host_is_verified_although_the_first_is_insecure(secured, misbehaving, resolve, home):
    name = secured()
    first = misbehaving(lambda request: request.reply(302, Location=f"https://{name.partition('/')[0]}{request.path}"))
    (home / "registries.conf").write_text(f'[[registry]]\nlocation = "{first.host}"\ninsecure = true\n')
    with pytest.raises(RegistryError, match="no TLS connection to"):
        resolve(f"{first.host}/server:v1")


@pytest.fixture
def trusted(misbehaving, certify, authority, certs_d):
    """Start a server that we trust, with answers of one's own."""

    def start(answer):
        server = misbehaving(answer, certify("server", authority))
        shutil.copy(authority.certificate_file, certs_d(f"{server.host}/a") / "ca.crt")
        return server

    return start


def test_what_has_tls_does_not_lead_to_what_has_none(trusted, misbehaving, resolve, log_in):
    plain = misbehaving(lambda request: request.reply(200))
    server = trusted(lambda request: request.reply(302, Location=f"http://{plain.host}{request.path}"))
    with pytest.raises(RegistryError, match=f"{server.host} answers oddly") as caught:
        resolve(f"{server.host}/a:v1")
    assert "it leads to a http address" in caught.value.details
    assert plain.asked == []


def test_no_token_is_asked_for_without_tls(trusted, misbehaving, resolve, log_in):
    plain = misbehaving(lambda request: request.reply(200, b'{"token": "x"}'))
    server = trusted(lambda request: request.reply(401, Www_Authenticate=f'Bearer realm="http://{plain.host}/token"'))
    log_in(**{server.host: "me:hush"})
    with pytest.raises(RegistryError, match=f"no token for {server.host}/a can be had") as caught:
        resolve(f"{server.host}/a:v1")
    assert caught.value.details == "the registry wants tokens to be asked for without TLS"
    assert plain.asked == []
