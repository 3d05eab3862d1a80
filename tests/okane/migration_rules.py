"""What a step of the schema may do to a table that is in use: only what takes no lock for longer than an instant."""

from __future__ import annotations

import re

# What Postgres does to a table of any size at once, or beside everybody who works on it.
_NAME = r'"?\w+"?'
_TYPE = r"(?:text|bytea|jsonb|uuid|boolean|smallint|integer|bigint|float8|numeric|date|timestamptz)(?:\[\])?"
_VALUE = r"(?:'[^']*'(?:::\w+)?|-?\d+|true|false)"
_DEFAULT = rf"(?:DEFAULT {_VALUE}(?: NOT NULL)?|NOT NULL DEFAULT {_VALUE})"
_HARMLESS = [
    rf"CREATE TABLE (?:IF NOT EXISTS )?{_NAME} \(.*\).*",
    rf"CREATE (?:UNIQUE )?INDEX CONCURRENTLY {_NAME} ON .*",
    rf"DROP INDEX CONCURRENTLY IF EXISTS {_NAME}",
    rf"ALTER TABLE {_NAME} ADD COLUMN {_NAME} {_TYPE}(?: {_DEFAULT})?",
    rf"ALTER TABLE {_NAME} ADD CONSTRAINT {_NAME} (?:CHECK|FOREIGN KEY) .* NOT VALID",
    rf"ALTER TABLE {_NAME} ADD CONSTRAINT {_NAME} (?:UNIQUE|PRIMARY KEY) USING INDEX {_NAME}",
    rf"ALTER TABLE {_NAME} VALIDATE CONSTRAINT {_NAME}",
    rf"ALTER TABLE {_NAME} DROP CONSTRAINT {_NAME}",
    rf"ALTER TABLE {_NAME} ALTER COLUMN {_NAME} (?:SET DEFAULT .*|DROP DEFAULT|DROP NOT NULL|SET STATISTICS -?\d+)",
    rf"ALTER TABLE {_NAME} (?:SET|RESET) \(.*\)",
    # Rows at rest: nobody waits for their locks but a human who wants to try one again.
    rf"UPDATE payments SET {_NAME} = .* WHERE status IN \('failed_final', 'canceled', 'needs_review'\)",
    r"COMMENT ON .*",
    r"(?:BEGIN|COMMIT)",
]
_ON_A_NEW_TABLE = rf"(?:CREATE (?:UNIQUE )?INDEX {_NAME} ON|INSERT INTO|ALTER TABLE) ({_NAME})\b.*"
# The old code still runs when the step is taken: what it uses may go one version later, and the step has to say so.
_CONTRACTS = rf"(?:ALTER TABLE {_NAME} DROP COLUMN {_NAME}|DROP TABLE {_NAME})"


def objections(sql: str, *, contracts: bool = False) -> list[str]:
    """The statements of a step that would keep others waiting, or break the version before it."""
    made: set[str] = set()
    refused = []
    for statement in _statements(sql):
        if creates := re.match(rf"CREATE TABLE (?:IF NOT EXISTS )?({_NAME})", statement):
            made.add(creates[1])
        on_new = re.fullmatch(_ON_A_NEW_TABLE, statement)
        if on_new and on_new[1] in made:
            continue
        if contracts and re.fullmatch(_CONTRACTS, statement):
            continue
        if not any(re.fullmatch(pattern, statement) for pattern in _HARMLESS):
            refused.append(statement)
    return refused


def _statements(sql: str) -> list[str]:
    plain = re.sub(r"--[^\n]*", "", sql)
    return [" ".join(one.split()) for one in plain.split(";") if one.strip()]
