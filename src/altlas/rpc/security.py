"""Who may talk to a role: certificates, the bearer token, and the table of who may call what.

Invariants: files are read and checked once, at the start; with certificates a call whose caller the table does not name
for its service is refused, also of services that the table does not know; neither keys nor the token are ever shown.
Unix sockets carry plaintext, TLS or not: the permissions of the file say who may connect.
"""

from __future__ import annotations

import hmac
import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from altlas.config.sections import SecuritySection
from altlas.errors import ConfigError

ROLE_URI = "altlas://role/"
"""What a certificate's URI begins with that names its role."""
ROLES = ("coordinator", "generator", "trainer", "evaluator", "client")
UNNAMED = ""
"""The role of a valid certificate that names none."""

_TOKEN_KEY = "authorization"
_SCHEME = "Bearer "
_OPEN_TO_ALL = ("/grpc.health.v1.", "/grpc.reflection.")
_CALLERS: Mapping[str, frozenset[str]] = {
    "/altlas.rpc.coordinator.v1.CoordinatorService/": frozenset({"client", "coordinator", UNNAMED}),
    "/altlas.rpc.evaluator.v1.EvaluatorService/": frozenset({"client"}),
    "/altlas.rpc.generator.v1.GeneratorService/": frozenset({"coordinator"}),
    "/altlas.rpc.trainer.v1.TrainerService/": frozenset({"coordinator"}),
    "/altlas.rpc.trainer.v1.TrainerService/GetPolicy": frozenset({"coordinator", "generator"}),
}


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM texts: the authorities believed, and this role's own certificate and key."""

    authorities: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Security:
    """What a process shows and asks for. Without certificates: plaintext; without a token: none is asked for."""

    certificates: Certificates | None = None
    token: str = field(default="", repr=False)


def load_security(section: SecuritySection) -> Security:
    """Read and check the files that the configuration names.

    Raises:
        ConfigError: some but not all of the three TLS files are named, one cannot be read, is not PEM, or does not go
            with the others, or the token's file is empty.
    """
    return Security(_load_certificates(section), _load_token(section.token_file))


def _load_certificates(section: SecuritySection) -> Certificates | None:
    paths = {"tls_ca": section.tls_ca, "tls_cert": section.tls_cert, "tls_key": section.tls_key}
    if not any(paths.values()):
        return None
    if missing := [f"security.{name}" for name, path in paths.items() if not path]:
        raise ConfigError(f"{' and '.join(missing)} not set: TLS needs all three of tls_ca, tls_cert and tls_key")
    contents = {name: _read(path, f"security.{name}") for name, path in paths.items()}
    _check_authorities(section.tls_ca)
    _check_pair(section.tls_cert, section.tls_key)
    return Certificates(contents["tls_ca"], contents["tls_cert"], contents["tls_key"])


def _read(path: str, key: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{key} = {path} cannot be read: {error.strerror or error}") from error


def _check_authorities(path: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise ConfigError(f"security.tls_ca = {path} holds no certificate in PEM: {_reason(error)}") from error


def _check_pair(certificate: str, key: str) -> None:
    def refuse_to_ask() -> str:
        raise ConfigError(f"security.tls_key = {key} is encrypted: a role has nobody to ask for its password")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=certificate)
    except ssl.SSLError as error:
        raise ConfigError(f"security.tls_cert = {certificate} is no certificate in PEM: {_reason(error)}") from error
    try:
        context.load_cert_chain(certificate, key, password=refuse_to_ask)
    except ssl.SSLError as error:
        raise ConfigError(
            f"security.tls_key = {key} is no key in PEM, or not that of security.tls_cert = {certificate}: "
            f"{_reason(error)}"
        ) from error


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()


def _load_token(path: str) -> str:
    if not path:
        return ""
    try:
        token = _read(path, "security.token_file").decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise ConfigError(f"security.token_file = {path} holds more than ASCII: a header cannot carry it") from error
    if not token:
        raise ConfigError(f"security.token_file = {path} is empty: write a token into it, or leave the key empty")
    if not token.isprintable() or " " in token:
        raise ConfigError(f"security.token_file = {path} holds more than one word: a token is one line without spaces")
    return token


def is_unix(address: str) -> bool:
    """Return whether an address is a socket's path, which file permissions guard."""
    return address.startswith("unix:")


def is_of_this_machine(address: str) -> bool:
    """Return whether only this machine reaches a server that listens on HOST:PORT or a unix socket."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_open_to_all(method: str) -> bool:
    """Return whether a method asks its callers for no role and no token: health and reflection."""
    return method.startswith(_OPEN_TO_ALL)


def may_call(role: str, method: str) -> bool:
    """Return whether the table lets a role call /package.Service/Method."""
    service = method.rpartition("/")[0] + "/"
    return is_open_to_all(method) or role in _CALLERS.get(method, _CALLERS.get(service, frozenset()))


def role_of(authentication: Mapping[str, object]) -> str:
    """Return the role that a caller's certificate names, from gRPC's auth_context; UNNAMED where it names none.

    A certificate that names several counts as one that names an unknown role: nothing may be called with it.
    """
    uris = [bytes(uri).decode("utf-8", "replace") for uri in _values(authentication, "peer_uri")]
    roles = [uri.removeprefix(ROLE_URI) for uri in uris if uri.startswith(ROLE_URI)]
    if not roles:
        return UNNAMED
    return roles[0] if len(roles) == 1 and roles[0] in ROLES else f"unknown ({', '.join(roles)[:100]})"


def _values(authentication: Mapping[str, object], name: str) -> list[bytes]:
    found = authentication.get(name, ())
    return [value for value in found if isinstance(value, bytes)] if isinstance(found, (list, tuple)) else []


def token_metadata(token: str) -> tuple[tuple[str, str], ...]:
    """Return what a call carries to show its token."""
    return ((_TOKEN_KEY, f"{_SCHEME}{token}"),)


def shows_token(metadata: object, token: str) -> bool:
    """Return whether a call's metadata shows the token; takes as long whatever is shown."""
    shown = [value for key, value in metadata or () if key == _TOKEN_KEY]  # type: ignore[attr-defined]
    if len(shown) != 1:
        return False
    text = shown[0] if isinstance(shown[0], bytes) else str(shown[0]).encode()
    return hmac.compare_digest(text, f"{_SCHEME}{token}".encode())
