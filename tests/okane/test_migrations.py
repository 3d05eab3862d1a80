"""The schema of an empty database, and the steps that migrate an older one to the same schema."""

from __future__ import annotations

import asyncio
import io
import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from alembic import command, op
from alembic.script import ScriptDirectory
from psycopg import sql

from okane.errors import SetupError
from okane.local.postgres import PostgresServer
from okane.payment import AWAITING_PROVIDER, RARE_STATUSES, Status
from okane.store import migrations, schema
from tests.okane.migration_rules import objections

VERSIONS = range(1, schema.VERSION + 1)
LATER = {*AWAITING_PROVIDER, Status.AUTHORIZED}  # the first versions do not have these

# The whole schema as text: two databases with equal texts are equal to okane.
CATALOG = """
SELECT 'column', c.table_name, c.column_name, c.data_type || ' ' || c.is_nullable || ' ' || coalesce(c.column_default, '')
FROM information_schema.columns c WHERE c.table_schema = 'public'
UNION ALL
SELECT 'constraint', o.conrelid::regclass::text, o.conname, pg_get_constraintdef(o.oid) || ' ' || o.convalidated
FROM pg_constraint o JOIN pg_namespace n ON n.oid = o.connamespace WHERE n.nspname = 'public' AND o.contype <> 'n'
UNION ALL
SELECT 'index', tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT 'valid', i.indrelid::regclass::text, i.indexrelid::regclass::text, i.indisvalid::text
FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid WHERE t.relnamespace = 'public'::regnamespace
UNION ALL
SELECT 'relation', relname, relkind::text, coalesce(reloptions::text, '') FROM pg_class
WHERE relnamespace = 'public'::regnamespace
UNION ALL
SELECT 'function', proname, pg_get_function_arguments(oid), prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL
SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
"""
PAYMENT = """
INSERT INTO payments (id, account_id, idempotency_key, fingerprint, amount_minor, currency, lane, provider_key)
VALUES (%s, 'default', 'k', '\\x00', 440, 'USD', 'low', 'p')
"""
PAYMENT_ID = UUID("0198c0de-0000-7000-8000-000000000001")
NO_LOCK_HELD = """
CREATE FUNCTION no_lock_held() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE held text;
BEGIN
    SELECT mode INTO held FROM pg_locks
    WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation = TG_RELID AND granted
      AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock', 'ShareUpdateExclusiveLock');
    IF FOUND THEN
        RAISE EXCEPTION '% of % under %', TG_OP, TG_TABLE_NAME, held;
    END IF;
    RETURN NULL;
END
$$
"""
# As a step fills a column of rows that are there.
BATCHES = (
    "DO $$ DECLARE n integer; BEGIN LOOP UPDATE payments SET lane = 'low' WHERE id IN"
    " (SELECT id FROM payments WHERE lane = 'slow' ORDER BY id LIMIT 1000 FOR UPDATE);"
    " GET DIAGNOSTICS n = ROW_COUNT; COMMIT; EXIT WHEN n = 0; END LOOP; END $$"
)


@pytest.fixture
def empty_database(postgres_server: PostgresServer) -> Iterator[Callable[[], str]]:
    """Create an empty database and return its address."""
    names: list[str] = []
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:

        def create() -> str:
            names.append(f"empty_{len(names)}")
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(names[-1])))
            return postgres_server.database_url(names[-1])

        yield create
        for name in names:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def at_version(url: str, version: int) -> str:
    """Migrate the database at this address to a released version; return the address."""
    with psycopg.connect(url, autocommit=True) as connection:
        migrations.upgrade(connection, found=0, to=version)
    return url


def pay_in_every_status(url: str, *, each: int) -> None:
    """Insert this many payments of each status, as an older version wrote them, without the newer columns."""
    ask(
        url,
        "INSERT INTO payments (id, account_id, idempotency_key, fingerprint, amount_minor, currency, lane, provider_key,"
        " status) SELECT gen_random_uuid(), 'default', s || n, '\\x00', 440, 'USD', 'low', s || n, s"
        " FROM unnest(%s::text[]) s, generate_series(1, %s) n",
        [[status for status in Status if status not in LATER], each],
    )


def ask(url: str, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []


def step(version: int) -> str:
    """Return the SQL of the step to a version."""
    config = migrations.alembic_config()
    config.output_buffer = io.StringIO()
    command.upgrade(config, f"{migrations.revision(version - 1)}:{migrations.revision(version)}", sql=True)
    lines = config.output_buffer.getvalue().splitlines()
    return "\n".join(line for line in lines if "alembic_version" not in line)


def test_the_steps_lead_to_the_version_that_the_code_wants() -> None:
    assert migrations.latest_version() == schema.VERSION
    script = ScriptDirectory.from_config(migrations.alembic_config())
    assert [int(step.revision) for step in script.walk_revisions()] == list(reversed(VERSIONS))


async def test_an_empty_database_gets_what_all_the_steps_lead_to(empty_database: Callable[[], str]) -> None:
    fresh, stepped = empty_database(), at_version(empty_database(), schema.VERSION)
    assert await schema.migrate(fresh) is True
    assert sorted(ask(fresh, CATALOG)) == sorted(ask(stepped, CATALOG))
    versions = "SELECT max(version) FROM okane_schema"
    assert ask(fresh, versions) == ask(stepped, versions) == [(schema.VERSION,)]


@pytest.mark.parametrize("version", VERSIONS)
async def test_any_released_version_is_brought_forward(empty_database: Callable[[], str], version: int) -> None:
    url = at_version(empty_database(), version)
    assert await schema.read_version(url) == version
    ask(url, PAYMENT, [PAYMENT_ID])
    assert await schema.migrate(url) is (version < schema.VERSION)
    assert await schema.read_version(url) == schema.VERSION
    assert ask(url, "SELECT id, amount_minor FROM payments") == [(PAYMENT_ID, 440)]
    assert await schema.migrate(url) is False


@pytest.mark.parametrize("version", [0, *VERSIONS])
async def test_many_processes_may_migrate_at_once(empty_database: Callable[[], str], version: int) -> None:
    url = empty_database() if version == 0 else at_version(empty_database(), version)
    changed = await asyncio.gather(*(schema.migrate(url) for _ in range(5)))
    assert sum(changed) == (version < schema.VERSION)
    assert await schema.read_version(url) == schema.VERSION


async def test_a_database_of_a_newer_version_is_refused(database_url: str) -> None:
    ask(database_url, "INSERT INTO okane_schema (version) VALUES (999)")
    with pytest.raises(SetupError, match="upgrade okane"):
        await schema.migrate(database_url)


async def test_a_database_that_is_away_is_said_to_be(free_port: int) -> None:
    with pytest.raises(SetupError, match="cannot be applied"):
        await schema.migrate(f"postgresql://okane@127.0.0.1:{free_port}/okane")


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_no_step_keeps_others_waiting(version: int) -> None:
    said = ScriptDirectory.from_config(migrations.alembic_config()).get_revision(migrations.revision(version)).doc
    assert objections(step(version), contracts="contracts" in said) == []


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_no_step_writes_a_table_anew(empty_database: Callable[[], str], version: int) -> None:
    url = at_version(empty_database(), version - 1)
    ask(url, PAYMENT, [PAYMENT_ID])
    files = "SELECT relname, relfilenode FROM pg_class WHERE relname IN ('payments', 'payment_events') ORDER BY 1"
    before = ask(url, files)
    with psycopg.connect(url, autocommit=True) as connection:
        migrations.upgrade(connection, found=version - 1, to=version)
    assert ask(url, files) == before


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX i ON payments (status)",
        "CREATE UNIQUE INDEX i ON payments (provider_ref)",
        "DROP INDEX payments_dead_at",
        "ALTER TABLE payments ADD COLUMN a timestamptz DEFAULT clock_timestamp()",
        "ALTER TABLE payments ADD COLUMN a integer NOT NULL",
        "ALTER TABLE payments ADD COLUMN a integer UNIQUE",
        "ALTER TABLE payments ADD COLUMN a integer GENERATED ALWAYS AS (retries + 1) STORED",
        "ALTER TABLE payments ADD CONSTRAINT c CHECK (retries >= 0)",
        "ALTER TABLE payments ADD CONSTRAINT c UNIQUE (provider_key)",
        "ALTER TABLE payments ALTER COLUMN retries TYPE bigint",
        "ALTER TABLE payments ALTER COLUMN provider_ref SET NOT NULL",
        "ALTER TABLE payments RENAME COLUMN lane TO queue",
        "ALTER TABLE payments DROP COLUMN lane",
        "ALTER TABLE payments SET TABLESPACE other",
        "UPDATE payments SET retries = 0",
        "UPDATE payments SET provider_ref = NULL WHERE status IN ('failed_final', 'canceled', 'needs_review')",
        "WITH old AS (SELECT id FROM payments LIMIT 9) UPDATE payments p SET retries = 0 FROM old WHERE old.id = p.id",
        "INSERT INTO payment_events SELECT * FROM payment_events",
        "MERGE INTO payments p USING old ON old.id = p.id WHEN MATCHED THEN DELETE",
        "SELECT fill()",
        "DO $$ BEGIN UPDATE payments SET retries = 0; END $$",
        "DO $$ BEGIN LOOP UPDATE payments SET retries = 0 WHERE id IN (SELECT id FROM payments LIMIT 9); END LOOP; END $$",
        "DO $$ BEGIN ALTER TABLE payments ADD COLUMN a text; LOOP PERFORM 1 LIMIT 9; COMMIT; EXIT; END LOOP; END $$",
        "DROP TRIGGER payments_set_rare_status ON payments",
        "DELETE FROM payment_events",
        "LOCK TABLE payments",
        "DROP TABLE payments",
        "REINDEX TABLE payments",
        "VACUUM FULL payments",
        "TRUNCATE payment_events",
        "CREATE TABLE t PARTITION OF payments FOR VALUES FROM (0) TO (10)",
    ],
)
def test_a_step_that_would_keep_others_waiting_is_refused(statement: str) -> None:
    assert objections(f"CREATE TABLE small (a integer); {statement};") == [statement]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE t (a integer PRIMARY KEY, b text NOT NULL DEFAULT 'x')",
        "CREATE TABLE t (a integer); CREATE INDEX i ON t (a); INSERT INTO t VALUES (1)",
        "CREATE TABLE t (a integer) PARTITION BY RANGE (a); CREATE TABLE t_0 PARTITION OF t FOR VALUES FROM (0) TO (10)",
        "DROP INDEX CONCURRENTLY IF EXISTS i; CREATE INDEX CONCURRENTLY i ON payments (dead_at) WHERE dead_at IS NOT NULL",
        "ALTER TABLE payments ADD COLUMN a timestamptz",
        "ALTER TABLE payments ADD COLUMN a integer NOT NULL DEFAULT 0",
        "ALTER TABLE payments ADD CONSTRAINT c CHECK (retries >= 0) NOT VALID",
        "ALTER TABLE payments VALIDATE CONSTRAINT c",
        "ALTER TABLE payments ALTER COLUMN provider_ref DROP NOT NULL",
        f"BEGIN; COMMIT; {BATCHES}",
        "CREATE OR REPLACE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.a := ';'; RETURN NEW; END $$;"
        "CREATE OR REPLACE TRIGGER t BEFORE UPDATE ON payments FOR EACH ROW WHEN (NEW.a IS NULL) EXECUTE FUNCTION f()",
    ],
)
def test_a_step_that_lets_others_work_is_taken(statement: str) -> None:
    assert objections(statement) == []


def test_batches_inside_the_transaction_of_a_step_are_refused() -> None:
    assert objections(f"BEGIN; ALTER TABLE payments ADD COLUMN a text; {BATCHES}; COMMIT") == [BATCHES]


@pytest.mark.parametrize(
    "statement",
    ["ALTER TABLE payments DROP COLUMN lane", "DROP TRIGGER t ON payments; DROP FUNCTION f()"],
)
def test_what_goes_away_has_to_be_said_to(statement: str) -> None:
    assert objections(statement) != []
    assert objections(statement, contracts=True) == []


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_no_step_changes_a_row_while_it_holds_a_lock_on_the_table(
    empty_database: Callable[[], str], version: int
) -> None:
    """Add a trigger to every table that fails if the session that changes rows has locked the table against others."""
    url = at_version(empty_database(), version - 1)
    pay_in_every_status(url, each=1)
    ask(url, NO_LOCK_HELD)
    for (table,) in ask(url, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'"):
        if table != "okane_schema":  # its row is the record of this step: only other migrations wait for it
            ask(
                url,
                f"CREATE TRIGGER no_lock_held BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table}"
                " EXECUTE FUNCTION no_lock_held()",
            )
    with psycopg.connect(url, autocommit=True) as connection:
        migrations.upgrade(connection, found=version - 1, to=version)


def test_the_rule_about_locks_sees_a_change_under_one(empty_database: Callable[[], str]) -> None:
    url = at_version(empty_database(), 1)
    ask(url, NO_LOCK_HELD)
    ask(url, "CREATE TRIGGER no_lock_held BEFORE UPDATE ON payments EXECUTE FUNCTION no_lock_held()")
    ask(url, "UPDATE payments SET retries = 0")
    with psycopg.connect(url) as connection:
        connection.execute("ALTER TABLE payments ADD COLUMN a text")
        with pytest.raises(psycopg.errors.RaiseException, match="AccessExclusiveLock"):
            connection.execute("UPDATE payments SET retries = 0")


@pytest.mark.parametrize("version", VERSIONS[1:])
async def test_a_step_that_is_cut_off_at_any_statement_is_taken_again(
    empty_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    """A step that dies keeps its commits outside of the transaction; the next try runs it from the start."""
    execute, url = op.execute, at_version(empty_database(), version - 1)
    pay_in_every_status(url, each=1)
    left = 0

    def dying(statement: str) -> None:
        nonlocal left
        if not left:
            raise Death
        left -= 1
        execute(statement)

    with monkeypatch.context() as patch:
        patch.setattr(op, "execute", dying)
        for lives in itertools.count():
            left = lives
            try:
                with psycopg.connect(url, autocommit=True) as connection:
                    migrations.upgrade(connection, found=version - 1, to=version)
                break
            except Death:
                assert ask(url, "SELECT max(version) FROM okane_schema") == [(version - 1,)]
    assert lives > 0
    assert sorted(ask(url, CATALOG)) == sorted(ask(at_version(empty_database(), version), CATALOG))


class Death(Exception):
    """The end of a process in the middle of a step."""


RARE_AND_WRONG = """
SELECT status, rare_status FROM payments
WHERE rare_status IS DISTINCT FROM CASE WHEN status = ANY (%s) THEN status END
"""


def test_rare_statuses_of_before_are_filled_in_batch_by_batch(
    empty_database: Callable[[], str],
) -> None:
    url = at_version(empty_database(), 2)
    pay_in_every_status(url, each=600)  # beyond two batches of 2,000
    with psycopg.connect(url, autocommit=True) as connection:
        migrations.upgrade(connection, found=2, to=3)
    assert ask(url, RARE_AND_WRONG, [sorted(RARE_STATUSES)]) == []
    [(transactions,)] = ask(url, "SELECT count(DISTINCT xmin::text) FROM payments WHERE rare_status IS NOT NULL")
    assert transactions == 3


@contextmanager
def held_up(url: str) -> Iterator[None]:
    """Keep a transaction open inside the block, so that no step gets its locks."""
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE okane_schema IN SHARE ROW EXCLUSIVE MODE")
        yield


async def test_a_step_that_gets_no_lock_is_taken_back_and_said_so(
    empty_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "LOCK_TIMEOUT_MS", 50)
    monkeypatch.setattr(schema, "TRIES", 2)
    url = at_version(empty_database(), 1)
    with held_up(url), pytest.raises(SetupError, match="lock timeout"):
        await schema.migrate(url, pause_s=0.0)
    assert ask(url, "SELECT to_regclass('api_keys')::text") == [(None,)]
    assert await schema.read_version(url) == 1
    assert await schema.migrate(url) is True
    assert ask(url, "SELECT to_regclass('alembic_version')::text") == [(None,)]


async def test_a_payment_that_is_locked_holds_up_the_step_and_leaves_it_whole(
    empty_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "LOCK_TIMEOUT_MS", 50)
    monkeypatch.setattr(schema, "TRIES", 2)
    url = at_version(empty_database(), 2)
    pay_in_every_status(url, each=1)
    with psycopg.connect(url) as connection:
        connection.execute("SELECT FROM payments WHERE status = 'canceled' FOR UPDATE")
        with pytest.raises(SetupError, match="lock timeout"):
            await schema.migrate(url, pause_s=0.0)
    assert await schema.read_version(url) == 2
    assert await schema.migrate(url) is True
    assert ask(url, RARE_AND_WRONG, [sorted(RARE_STATUSES)]) == []


async def test_a_step_that_ends_a_deadlock_is_taken_again(
    empty_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, upgrade, tries = at_version(empty_database(), 2), migrations.upgrade, 0

    def unlucky(connection: psycopg.Connection, *, found: int) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise psycopg.errors.DeadlockDetected
        upgrade(connection, found=found)

    monkeypatch.setattr(migrations, "upgrade", unlucky)
    assert await schema.migrate(url, pause_s=0.0) is True
    assert tries == 2


async def test_a_step_waits_for_its_lock_by_trying_again(
    empty_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "LOCK_TIMEOUT_MS", 50)
    url = at_version(empty_database(), 1)
    tries: list[int] = []
    upgrade = migrations.upgrade

    def counted(connection: psycopg.Connection, *, found: int) -> None:
        tries.append(found)
        upgrade(connection, found=found)

    monkeypatch.setattr(migrations, "upgrade", counted)
    with held_up(url):
        migrating = asyncio.create_task(schema.migrate(url, pause_s=0.0))
        async with asyncio.timeout(30):
            while len(tries) < 2:
                await asyncio.sleep(0.01)
    assert await migrating is True
    assert len(tries) > 1


async def test_what_cannot_run_in_a_transaction_runs_outside_of_it(
    empty_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Create an index concurrently, by a step like those in CONTRIBUTING.md, while others wait for the migration lock."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrations.FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "v9999_index.py").write_text(
        f"from alembic import op\nrevision, down_revision = '9999', '{migrations.revision(schema.VERSION)}'\n"
        "def upgrade():\n    with op.get_context().autocommit_block():\n"
        "        op.execute('DROP INDEX CONCURRENTLY IF EXISTS later')\n"
        "        op.execute('CREATE INDEX CONCURRENTLY later ON payments (dead_at)')\n"
    )
    url = at_version(empty_database(), 1)
    monkeypatch.setattr(migrations, "FOLDER", folder)
    monkeypatch.setattr(schema, "VERSION", 9999)
    changed = await asyncio.gather(*(schema.migrate(url) for _ in range(4)))
    assert sum(changed) == 1
    valid = "SELECT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relname = 'later'"
    assert ask(url, valid) == [(True,)]
    assert await schema.read_version(url) == 9999
