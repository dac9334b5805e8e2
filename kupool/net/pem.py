"""Split PEM files into certificates. Pure."""

from __future__ import annotations

import re

#: Shown when TLS is requested but its packages are not installed.
NEEDS_TLS = "TLS needs the extra kupool[tls]; from a checkout: pip install '.[tls]'"

_PEM = re.compile(b"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def pem_certificates(data: bytes) -> list[bytes]:
    """Return each certificate of a PEM file, in order."""
    return _PEM.findall(data)


__all__ = ["NEEDS_TLS", "pem_certificates"]
