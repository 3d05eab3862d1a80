"""The start of a process: what will not mend itself in Postgres is told from an outage."""

from __future__ import annotations

import re

import psycopg
import pytest

from okane.errors import StoreUnavailable
from okane.store.server_facts import LoginRefused, read_postgres_facts


async def test_a_login_that_postgres_refuses_is_told_from_an_outage(database_url: str) -> None:
    no_login = re.sub(r"//[^@]*@", "//no_such_role:no-such-password@", database_url)
    no_database = re.sub(r"/[^/?]+(\?|$)", r"/no_such_database\1", database_url)
    for url in (no_login, no_database):
        with pytest.raises(LoginRefused) as raised:
            await read_postgres_facts(url)
        assert "no-such-password" not in str(raised.value)
    with pytest.raises(StoreUnavailable) as away:
        await read_postgres_facts(re.sub(r"@[^/]*/", "@127.0.0.1:1/", database_url))
    assert not isinstance(away.value, LoginRefused)


async def test_a_role_without_rights_is_refused(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as admin:
        await admin.execute(
            "DO $$ BEGIN CREATE ROLE without_rights LOGIN PASSWORD 'x'; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )
    with pytest.raises(LoginRefused, match="permission denied"):
        await read_postgres_facts(re.sub(r"//[^@]*@", "//without_rights:x@", database_url))
