"""The digests of idempotency keys, by which payments in table partitions are unique."""

from __future__ import annotations

import hashlib
from uuid import UUID


def digest(account_id: str, idempotency_key: str) -> UUID:
    """Return the first 16 bytes of SHA-256 over account and key, as a UUID because Postgres stores that in 16 bytes."""
    account = account_id.encode(errors="surrogatepass")
    whole = b"%d:%b%b" % (len(account), account, idempotency_key.encode(errors="surrogatepass"))
    return UUID(bytes=hashlib.sha256(whole).digest()[:16])
