"""Certificates for tests: those of `altlas certs`, and some that no server may believe."""

from __future__ import annotations

import datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from altlas.cli.certs import issue
from altlas.config.sections import SecuritySection


def section(directory: Path, role: str, *, token_file: str = "") -> SecuritySection:
    """The settings of a role whose files `make_certs` wrote."""
    names = {"tls_ca": "ca", "tls_cert": role, "tls_key": f"{role}-key"}
    return SecuritySection(**{key: f"{directory}/{name}.pem" for key, name in names.items()}, token_file=token_file)


def settings(directory: Path, role: str) -> list[str]:
    """The same as arguments of --set."""
    return [f"security.{key}={value}" for key, value in section(directory, role).model_dump().items() if value]


def credentials(directory: Path, role: str, *, authority: Path | None = None) -> grpc.ChannelCredentials:
    """A caller that shows the certificate of a role; role '' shows none."""
    ca = ((authority or directory) / "ca.pem").read_bytes()
    if not role:
        return grpc.ssl_channel_credentials(ca)
    return grpc.ssl_channel_credentials(
        ca, (directory / f"{role}-key.pem").read_bytes(), (directory / f"{role}.pem").read_bytes()
    )


def encrypted(path: Path) -> bytes:
    """The PEM text of a key with a password."""
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    lock = serialization.BestAvailableEncryption(b"secret")
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)


def _authority(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = serialization.load_pem_private_key((directory / "ca-key.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes()), key


def _write(directory: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    (directory / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (directory / f"{name}-key.pem").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))


def write_expired(directory: Path, role: str) -> str:
    """Add a certificate of a role that ran out yesterday; returns its name."""
    key, (authority, authority_key) = ec.generate_private_key(ec.SECP256R1()), _authority(directory)
    expired = issue(role, key, hosts=(), days=-1, authority=authority, authority_key=authority_key)
    _write(directory, f"expired-{role}", expired, key)
    return f"expired-{role}"


def write_naming(directory: Path, name: str, uris: list[str]) -> str:
    """Add a certificate of the authority that names these URIs, whatever they say; returns its name."""
    key, (authority, authority_key) = ec.generate_private_key(ec.SECP256R1()), _authority(directory)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "trainer")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=authority.subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(days=1),
        not_valid_after=now + datetime.timedelta(days=1),
    )
    names: list[x509.GeneralName] = [x509.DNSName("coordinator"), *map(x509.UniformResourceIdentifier, uris)]
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    _write(directory, name, builder.sign(authority_key, hashes.SHA256()), key)
    return name


def write_self_signed(directory: Path, role: str) -> str:
    """Add a certificate that only its own key has signed; returns its name."""
    key = ec.generate_private_key(ec.SECP256R1())
    authority, _ = _authority(directory)
    certificate = issue(role, key, hosts=(), days=1, authority=authority, authority_key=key)
    _write(directory, f"self-signed-{role}", certificate, key)
    return f"self-signed-{role}"
