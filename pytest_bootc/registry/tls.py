"""Whom to believe that it is the registry: the system's certificates, and those of containers-certs.d(5)."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests.utils
import urllib3
from requests import PreparedRequest
from requests.adapters import HTTPAdapter

from pytest_bootc.errors import ConfigError

_SYSTEM_FOLDERS = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))
_OF_OPENSSL = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_OF_REQUESTS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def certificate_folder(host: str) -> Path | None:
    """The folder ``certs.d/HOST[:PORT]`` that is for the registry: the user's, else the system's."""
    folders = [*_SYSTEM_FOLDERS]
    with suppress(RuntimeError):  # this user has no home
        folders.insert(0, Path.home() / ".config/containers/certs.d")
    return next((folder / host for folder in folders if (folder / host).is_dir()), None)


def make_context(folder: Path | None = None, *, verified: bool = True) -> ssl.SSLContext:
    """What TLS is spoken with: the system's authorities (or ``$SSL_CERT_FILE``'s), and the folder's files.

    In the folder ``*.crt`` are further authorities, ``*.cert`` and ``*.key`` of one name are what we show.

    :raises ConfigError: one of the files cannot be used.
    """
    context = ssl.create_default_context()
    if not any(os.environ.get(name) for name in _OF_OPENSSL):
        # A Python from elsewhere may not know where the system has its own.
        _trust(context, Path(requests.utils.DEFAULT_CA_BUNDLE_PATH))
    for name in _OF_REQUESTS:
        if os.environ.get(name):
            _trust(context, Path(os.environ[name]))
    for path in () if folder is None else sorted(folder.iterdir()):
        if path.suffix == ".crt":
            _trust(context, path)
        elif path.suffix == ".cert":
            _show(context, path)
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _trust(context: ssl.SSLContext, path: Path) -> None:
    try:
        if path.is_dir():
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(path)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"the certificates in {path} cannot be used", details=str(error), resolution="give it in PEM format"
        ) from error


def _show(context: ssl.SSLContext, path: Path) -> None:
    key = path.with_suffix(".key")
    try:
        context.load_cert_chain(path, key)
    except OSError as error:
        raise ConfigError(
            f"the client certificate {path} cannot be used with {key.name}",
            details=str(error),
            resolution="both have to be there, in PEM format, for one key pair",
        ) from error


class Adapter(HTTPAdapter):
    """Connections that are made in one context, whatever requests would trust besides; it is made when first used."""

    def __init__(self, make: Callable[[], ssl.SSLContext]) -> None:
        self._make = make
        self._context: ssl.SSLContext | None = None
        super().__init__()

    def build_connection_pool_key_attributes(
        self, request: PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """See :class:`HTTPAdapter`; the context says what is verified."""
        if self._context is None:
            self._context = self._make()
        if self._context.verify_mode == ssl.CERT_NONE:  # somebody has said so: there is nothing to warn of
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        where, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return where, {"ssl_context": self._context}

    def cert_verify(self, *_: Any) -> None:
        """See :class:`HTTPAdapter`; the context says what is verified."""
