# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates for the routers' control endpoint, issuers' keys and the tenants' tokens."""

from __future__ import annotations

import ipaddress
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

XSUAA = "https://{subdomain}.authentication.us10.hana.ondemand.com/oauth/token"
XSUAA_AUDIENCE = "revenue-cloud!b1"
XSUAA_KEY = "default-jwt-key"
YAAS = "https://api.yaas.example"
YAAS_AUDIENCE = "rc"
_LIFE = timedelta(days=1)
_CA_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
_PRIVATE = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _write(path: Path, *parts: bytes) -> Path:
    path.touch(0o600)
    path.write_bytes(b"".join(parts))
    return path


@dataclass(frozen=True)
class Certificates:
    """PEM files: the authority, and a certificate with its key in one file for the router and for the controller."""

    authority: Path
    router: Path
    controller: Path

    @classmethod
    def make(cls, folder: Path, *names: str) -> Certificates:
        """:param names: host names that they are valid for, besides this machine's."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "landscape CA")])
        authority = (
            _builder(name, name, key, key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_CA_USAGE, critical=True)
        ).sign(key, hashes.SHA256())

        def issue(common_name: str, usage: x509.ObjectIdentifier) -> Path:
            own = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
            address = x509.SubjectAlternativeName(
                [
                    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                    x509.DNSName("localhost"),
                    *map(x509.DNSName, names),
                ]
            )
            certificate = (
                _builder(subject, name, own, key)
                .add_extension(address, critical=False)
                .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            ).sign(key, hashes.SHA256())
            return _write(
                folder / f"{common_name}.pem",
                certificate.public_bytes(serialization.Encoding.PEM),
                own.private_bytes(*_PRIVATE),
            )

        return cls(
            _write(folder / "ca.pem", authority.public_bytes(serialization.Encoding.PEM)),
            issue("router", ExtendedKeyUsageOID.SERVER_AUTH),
            issue("controller", ExtendedKeyUsageOID.CLIENT_AUTH),
        )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    """A certificate that also passes the strict checks of Python 3.13: both key identifiers are in it."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )


class Issuers:
    """An XSUAA issuer (RS256, the claim ``zid`` is the tenant's id) and a yaas one (HS256, ``tenant`` is its
    subdomain).
    """

    def __init__(self, folder: Path) -> None:
        self._keys_dir = folder / "xsuaa"
        self._keys_dir.mkdir()
        self._secret = secrets.token_urlsafe(32)
        self._private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = self._private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        _write(self._keys_dir / f"{XSUAA_KEY}.pem", public)

    def xsuaa_token(self, subdomain: str, tenant_id: str) -> str:
        claims = {"iss": XSUAA.format(subdomain=subdomain), "aud": ["openid", XSUAA_AUDIENCE], "zid": tenant_id}
        return jwt.encode(self._dated(claims), self._private, algorithm="RS256", headers={"kid": XSUAA_KEY})

    def yaas_token(self, subdomain: str) -> str:
        return jwt.encode(
            self._dated({"iss": YAAS, "aud": YAAS_AUDIENCE, "tenant": subdomain}), self._secret, algorithm="HS256"
        )

    @staticmethod
    def _dated(claims: dict[str, Any]) -> dict[str, Any]:
        return {**claims, "iat": int(time.time()), "exp": int(time.time() + _LIFE.total_seconds())}

    def describe(self) -> list[dict[str, Any]]:
        """``zdm_landscape.issuers``."""
        return [
            {
                "issuer": XSUAA.format(subdomain="*"),
                "algorithm": "RS256",
                "keys_dir": str(self._keys_dir),
                "audience": XSUAA_AUDIENCE,
                "tenant_claim": "zid",
                "tenant_claim_is": "id",
            },
            {
                "issuer": YAAS,
                "algorithm": "HS256",
                "secret": self._secret,
                "audience": YAAS_AUDIENCE,
                "tenant_claim": "tenant",
                "tenant_claim_is": "subdomain",
            },
        ]
