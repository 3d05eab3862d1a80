"""The steps from one version of the schema to the next, run by alembic.

A step is a file in `versions`: plain SQL, in a transaction of its own. docs/operations.md lists the allowed changes of a
table in use, and a test refuses others. `okane_schema` is the record: alembic's own table is created from it, and dropped
after the steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

FOLDER = Path(__file__).parent


def alembic_config() -> Config:
    """Return the configuration of alembic."""
    settings = Config()
    settings.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    return settings


def latest_version() -> int:
    """Return the version after the last step."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    return int(head) if head is not None else 0


def upgrade(connection: psycopg.Connection, *, found: int, to: int | None = None) -> None:
    """Run the steps after version `found` (0: an empty database) up to version `to`, or all. Raises psycopg's errors.

    Each is committed by itself, with its row in `okane_schema`.
    """
    # All on one connection, which holds the migration lock. SQLAlchemy leaves BEGIN to the connection: in autocommit mode a
    # failed step would stay half done.
    connection.autocommit = False
    engine = create_engine("postgresql+psycopg://", creator=lambda: connection, poolclass=StaticPool)
    settings = alembic_config()
    try:
        with engine.connect() as bound:
            settings.attributes.update(connection=bound, note=_note)
            command.stamp(settings, revision(found), purge=True)
            command.upgrade(settings, "head" if to is None else revision(to))
            bound.exec_driver_sql("DROP TABLE alembic_version")
            bound.commit()
    except DBAPIError as error:
        raise error.orig or error from error
    finally:
        connection.autocommit = True


def revision(version: int) -> str:
    """Return alembic's name of a version."""
    return f"{version:04}" if version else "base"


def _note(*, ctx: Any, step: Any, **_others: Any) -> None:
    if not step.is_stamp:
        ctx.connection.exec_driver_sql("INSERT INTO okane_schema (version) VALUES (%s)", (int(step.up_revision_id),))
