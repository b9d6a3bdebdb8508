"""`altlas certs`: a development authority and a certificate per role, for mutual TLS between the roles.

Each certificate names its role in a URI, altlas://role/<role>, by which altlas.rpc.security decides who may call what.
Whoever holds ca-key.pem can be any role: it is needed for new certificates only and belongs on no role's machine.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from altlas.errors import ConfigError
from altlas.rpc.security import ROLE_URI, ROLES

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

# What a server is called by on the same machine; the name of its role is what docker compose calls it by.
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_CLOCK_SKEW = datetime.timedelta(minutes=5)
_MAX_DAYS = 3650


def make_certs(directory: Path, *, hosts: Sequence[str] = (), days: int = 365) -> list[Path]:
    """Write ca.pem, ca-key.pem, and ROLE.pem and ROLE-key.pem for every role; return the paths written.

    A certificate holds for its role's name, for this machine, and for `hosts`; the client's for none, since it serves
    nothing. Key files are readable by their owner alone.

    Raises:
        ConfigError: one of the files is there already, `days` or a host is out of range, the directory cannot be
            written, or the cryptography package is missing.
    """
    if not 1 <= days <= _MAX_DAYS:
        raise ConfigError(f"--days {days}: 1 to {_MAX_DAYS}")
    names = [name for role in ("ca", *ROLES) for name in (f"{role}.pem", f"{role}-key.pem")]
    if found := [name for name in names if (directory / name).exists()]:
        raise ConfigError(
            f"{directory} holds {', '.join(found)} already: take another directory, or delete them; certificates of "
            "the old authority are then believed by nobody"
        )
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise ConfigError("altlas certs needs the cryptography package: pip install 'altlas[local]'") from error
    texts = _issue_all(hosts, days)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return [_write(directory / name, texts[name], is_secret=name.endswith("-key.pem")) for name in names]
    except OSError as error:
        raise ConfigError(f"cannot write certificates to {directory}: {error}") from error


def _issue_all(hosts: Sequence[str], days: int) -> dict[str, bytes]:
    from cryptography.hazmat.primitives.asymmetric import ec

    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _authority(authority_key, days)
    texts = {"ca.pem": _certificate_text(authority), "ca-key.pem": _key_text(authority_key)}
    for role in ROLES:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = issue(role, key, hosts=hosts, days=days, authority=authority, authority_key=authority_key)
        texts |= {f"{role}.pem": _certificate_text(certificate), f"{role}-key.pem": _key_text(key)}
    return texts


def _authority(key: EllipticCurvePrivateKey, days: int) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    name = _name("AltLAS development authority")
    usage = _key_usage(key_cert_sign=True, crl_sign=True)
    builder = _builder(name, name, key, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.sign(key, hashes.SHA256())


def issue(
    role: str,
    key: EllipticCurvePrivateKey,
    *,
    hosts: Sequence[str],
    days: int,
    authority: x509.Certificate,
    authority_key: EllipticCurvePrivateKey,
) -> x509.Certificate:
    """Return a certificate of a role, signed by the authority; with days below 0 it has run out already."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID

    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"{ROLE_URI}{role}")]
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
    # A client's certificate is handed to people: it must not pass for a server.
    if role != "client":
        names += map(_host, dict.fromkeys((role, *_LOCAL_HOSTS, *hosts)))
        purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    builder = _builder(_name(role), authority.subject, key, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(digital_signature=True), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(identifier, critical=False)
    return builder.sign(authority_key, hashes.SHA256())


def _builder(subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
    from cryptography import x509

    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    starts = min(datetime.datetime.now(datetime.UTC), ends - datetime.timedelta(days=1)) - _CLOCK_SKEW
    builder = x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key.public_key())
    return builder.serial_number(x509.random_serial_number()).not_valid_before(starts).not_valid_after(ends)


def _name(common_name: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass  # a name then
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise ConfigError(f"--hosts {host!r} is neither a host's name nor an address: {error}") from error


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _certificate_text(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _key_text(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes, *, is_secret: bool) -> Path:
    # O_EXCL besides the check above: two calls at once must not mix their authorities.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if is_secret else 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return path
