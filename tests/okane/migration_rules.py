"""The statements that a step of the schema may take while the tables are in use: none that holds a lock for longer than an
instant, and none that changes rows in a transaction which may hold a lock on their table.
"""

from __future__ import annotations

import re

# Changes that Postgres makes at once for a table of any size, or without blocking other sessions.
_NAME = r'"?\w+"?'
_TYPE = r"(?:text|bytea|jsonb|uuid|boolean|smallint|integer|bigint|float8|numeric|date|timestamptz)(?:\[\])?"
_VALUE = r"(?:'[^']*'(?:::\w+)?|-?\d+|true|false)"
_DEFAULT = rf"(?:DEFAULT {_VALUE}(?: NOT NULL)?|NOT NULL DEFAULT {_VALUE})"
_HARMLESS = [
    rf"CREATE TABLE (?:IF NOT EXISTS )?{_NAME} \(.*\).*",
    rf"CREATE (?:UNIQUE )?INDEX CONCURRENTLY {_NAME} ON .*",
    rf"DROP INDEX CONCURRENTLY IF EXISTS {_NAME}",
    rf"ALTER TABLE {_NAME} ADD COLUMN (?:IF NOT EXISTS )?{_NAME} {_TYPE}(?: {_DEFAULT})?",
    rf"ALTER TABLE {_NAME} ADD CONSTRAINT {_NAME} (?:CHECK|FOREIGN KEY) .* NOT VALID",
    rf"ALTER TABLE {_NAME} ADD CONSTRAINT {_NAME} (?:UNIQUE|PRIMARY KEY) USING INDEX {_NAME}",
    rf"ALTER TABLE {_NAME} VALIDATE CONSTRAINT {_NAME}",
    rf"ALTER TABLE {_NAME} DROP CONSTRAINT {_NAME}",
    rf"ALTER TABLE {_NAME} ALTER COLUMN {_NAME} (?:SET DEFAULT .*|DROP DEFAULT|DROP NOT NULL|SET STATISTICS -?\d+)",
    rf"ALTER TABLE {_NAME} (?:SET|RESET) \(.*\)",
    rf"CREATE OR REPLACE FUNCTION {_NAME}\(\) RETURNS trigger LANGUAGE plpgsql AS .*",
    rf"CREATE OR REPLACE TRIGGER {_NAME} (?:BEFORE|AFTER) .* ON {_NAME} FOR EACH ROW WHEN .*",
    r"COMMENT ON .*",
]
_ON_A_NEW_TABLE = rf"(?:CREATE (?:UNIQUE )?INDEX (?:IF NOT EXISTS )?{_NAME} ON|INSERT INTO|ALTER TABLE) ({_NAME})\b.*"
_PART_OF_A_NEW_TABLE = (
    rf"CREATE TABLE (?:IF NOT EXISTS )?{_NAME} PARTITION OF ({_NAME}) FOR VALUES "
    r"(?:FROM \(\d+\) TO \(\d+\)|WITH \(MODULUS \d+, REMAINDER \d+\))"
)
# The old code still runs during the step: a step may drop what it uses one version later, and must say so.
_CONTRACTS = (
    rf"(?:ALTER TABLE {_NAME} DROP COLUMN {_NAME}|DROP TABLE {_NAME}"
    rf"|DROP TRIGGER (?:IF EXISTS )?{_NAME} ON {_NAME}|DROP FUNCTION (?:IF EXISTS )?{_NAME}(?:\(\))?)"
)
# Rows of a table that exists are changed by a loop that commits each batch, outside of the step's transaction.
_BATCHES = r"DO (\$\w*\$).* LOOP .* LIMIT \d+\b.* COMMIT; .* END LOOP; .*\1"
_NOT_IN_BATCHES = r"\b(?:ALTER|CREATE|DROP|LOCK|TRUNCATE|EXECUTE)\b"


def objections(sql: str, *, contracts: bool = False) -> list[str]:
    """Return the statements of a step that would block other sessions, or break the previous version."""
    made: set[str] = set()
    refused = []
    in_transaction = False
    for statement in _statements(sql):
        if statement in {"BEGIN", "COMMIT"}:
            in_transaction = statement == "BEGIN"
            continue
        if creates := re.match(rf"CREATE TABLE (?:IF NOT EXISTS )?({_NAME})", statement):
            made.add(creates[1])
        on_new = re.fullmatch(_ON_A_NEW_TABLE, statement) or re.fullmatch(_PART_OF_A_NEW_TABLE, statement)
        if on_new and on_new[1] in made:
            continue
        if contracts and re.fullmatch(_CONTRACTS, statement):
            continue
        in_batches = re.fullmatch(_BATCHES, statement) and not re.search(_NOT_IN_BATCHES, statement)
        if in_batches and not in_transaction:
            continue
        if not any(re.fullmatch(pattern, statement) for pattern in _HARMLESS):
            refused.append(statement)
    return refused


def _statements(sql: str) -> list[str]:
    plain = re.sub(r"--[^\n]*", "", sql)
    # A semicolon in a string or in the body of a function does not end a statement.
    found = (one[0] for one in re.finditer(r"(?:\$(\w*)\$.*?\$\1\$|'[^']*'|[^;])+", plain, re.DOTALL))
    return [" ".join(one.split()) for one in found if one.strip()]
