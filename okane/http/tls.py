"""TLS as a client: certificates are verified against the authorities of the system, and the protocol is HTTP/1.1."""

from __future__ import annotations

import ssl


def client_context() -> ssl.SSLContext:
    """Return a new context. Making one reads hundreds of certificates and takes milliseconds: share it."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
