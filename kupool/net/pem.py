"""Certificates in a PEM file. Pure."""

from __future__ import annotations

import re

_PEM = re.compile(b"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def pem_certificates(data: bytes) -> list[bytes]:
    """Return each certificate of a PEM file, in order."""
    return _PEM.findall(data)


__all__ = ["pem_certificates"]
