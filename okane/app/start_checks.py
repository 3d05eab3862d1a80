"""The checks at the start of a process: a lasting fault ends it with a message, a passing one is waited for.

Credentials, certificates, missing rights, an old schema and a Redis that may evict the queue end the process. A server that
refuses connections, is loading, failing over, full, or whose slot is moving to another node is away: the process starts and
works without it. At run time all of this counts as away, rights and credentials included.
"""

from __future__ import annotations

import structlog

from okane.app.resources import Resources, needed
from okane.config import Settings
from okane.errors import SetupError, StoreUnavailable
from okane.providers.config import load_providers
from okane.redis.rights import missing_rights
from okane.store import schema
from okane.store.pooler import PoolerRefused
from okane.store.server_facts import LoginRefused, read_postgres_facts
from streams import (
    CommandRejected,
    StreamForbidden,
    StreamRefused,
    StreamUnavailable,
    require_noeviction,
    user_of,
)

RIGHTS = "docs/operations.md#rights-in-redis"

log = structlog.get_logger("okane.start")


async def check_servers(settings: Settings, resources: Resources, *, consumes: bool, inspects: bool = False) -> None:
    """Raise SetupError for a fault that has to be corrected first. `consumes`: the process reads the stream (a worker).
    `inspects`: it lists what is on the stream (a console)."""
    await check_postgres(settings)
    try:
        await _check_redis(settings, resources, consumes=consumes, inspects=inspects)
    except (StreamForbidden, CommandRejected) as error:
        # The login was refused, or the server is of another kind: it is not about one command.
        raise SetupError(f"Redis does not take this process: {error}. Correct REDIS_URL; see {RIGHTS}") from error
    except StreamUnavailable as error:
        log.warning("redis_away_at_start", reason=str(error))


async def check_postgres(settings: Settings) -> None:
    """Raise SetupError for a fault of Postgres that has to be corrected first."""
    try:
        found = (await read_postgres_facts(needed(settings.database_url, "DATABASE_URL"))).schema_version
    except PoolerRefused as error:
        raise SetupError(str(error)) from error
    except LoginRefused as error:
        raise SetupError(
            f"Postgres does not take this process: {error}. Correct DATABASE_URL, or its rights"
        ) from error
    except StoreUnavailable as error:
        log.warning("postgres_away_at_start", reason=str(error))
    else:
        if found is None or found < schema.VERSION:
            raise SetupError(
                f"the database has schema version {found or 'none'}, not {schema.VERSION}: run `okane migrate`"
            )


async def _check_redis(settings: Settings, resources: Resources, *, consumes: bool, inspects: bool) -> None:
    limits_rates = not consumes or bool(load_providers(settings).rates)  # of API keys, or of providers
    for stream in (resources.stream, resources.operations_stream):
        missing = await missing_rights(
            resources.redis,
            stream,
            group=settings.group,
            consumes=consumes,
            limits_rates=limits_rates,
            inspects=inspects,
        )
        if missing is not None:
            raise SetupError(f"{missing}. All that is needed: {RIGHTS}")
    if not settings.check_eviction:
        return
    try:
        await require_noeviction(resources.redis)
    except StreamRefused as error:
        raise SetupError(
            f"INFO, which says whether Redis may evict the queue, is refused ({error}). Grant it: ACL SETUSER "
            f"{user_of(resources.redis)} +info, or set OKANE_CHECK_EVICTION=false if maxmemory-policy is noeviction"
        ) from error
