"""The migrations of sql/: the database after them, and the rows that must not be in their way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fix_cli import Rows, asking

from outreach_migrate.testing import DatabaseBefore

SQL = str(Path(__file__).parent.parent / "sql")
BASELINE, CADENCE = "20260101000000", "20260115000000"

ADD_SEQUENCE = """
    INSERT INTO "OutreachSequence" ("id", "updatedAt", "name", "status") VALUES ('s', now(), 'first', 'active')"""
ADD_STEP = """
    INSERT INTO "OutreachStep" ("id", "updatedAt", "stepOrder", "status", "sequenceId")
    VALUES ('a', now(), 1, 'planned', 's')"""
ADD_STEP_WITHOUT_NAMES = """
    INSERT INTO "OutreachStep"
    VALUES ('b', now(), now(), 2, 'Hello', 'text', NULL, NULL, NULL, 'planned', NULL, 's', NULL)"""

TABLES = {
    "OutreachSequence": """
        id text NOT NULL, createdAt timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, updatedAt timestamp(3) NOT NULL,
        name text NOT NULL, status text NOT NULL, metadata jsonb""",
    "OutreachLog": """
        id text NOT NULL, createdAt timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, updatedAt timestamp(3) NOT NULL,
        channel text NOT NULL, status text NOT NULL, subject text, bodyText text, bodyHtml text, sentAt timestamp(3),
        metadata jsonb""",
    "OutreachStep": """
        id text NOT NULL, createdAt timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, updatedAt timestamp(3) NOT NULL,
        stepOrder integer NOT NULL, subject text, bodyText text, bodyHtml text, plannedAt timestamp(3),
        sentAt timestamp(3), status text NOT NULL, metadata jsonb, sequenceId text NOT NULL, outreachLogId text""",
}
CADENCE_COLUMNS = "scheduledAt timestamp(3), triggeredBy text, nextStepReadyAt timestamp(3)"


@pytest.fixture
def before(migration_at: Callable[[str], DatabaseBefore]) -> DatabaseBefore:
    """The database just before the cadence engine's columns."""
    return migration_at(CADENCE)


@pytest.fixture
def baseline(before: DatabaseBefore) -> Rows:
    """A function that asks the database as Prisma left it."""
    return asking(before.connect(autocommit=True))


@pytest.fixture
def cadence(migrated_connection: psycopg.Connection) -> Rows:
    """A function that asks the database after the cadence engine's columns."""
    return asking(migrated_connection)


def columns(rows: Rows, table: str) -> list[str]:
    """Give a table's columns as CREATE TABLE would have them."""
    found = rows(
        """
        SELECT attname || ' ' || format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END
               || coalesce(' DEFAULT ' || pg_get_expr(adbin, adrelid), '')
          FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
         WHERE attrelid = quote_ident(%s)::regclass AND attnum > 0 ORDER BY attnum""",
        table,
    )
    return [column.replace("timestamp(3) without time zone", "timestamp(3)") for (column,) in found]


def listed(text: str) -> list[str]:
    return [column.strip() for column in text.split(",")]


@pytest.mark.parametrize("table", TABLES)
def test_the_baseline_makes_prismas_tables(baseline: Rows, table: str) -> None:
    """Every column has the type, the nullability and the default that Prisma gave it, in Prisma's order."""
    assert columns(baseline, table) == listed(TABLES[table])


def test_the_baseline_keeps_prismas_names(baseline: Rows) -> None:
    """Constraints and indexes have the names by which Prisma will look for them, and work as before."""
    constraints: dict[str, str] = dict(
        baseline("SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conname ~ '^Outreach.*_[pf]key$'")
    )
    assert constraints == {
        "OutreachSequence_pkey": "PRIMARY KEY (id)",
        "OutreachLog_pkey": "PRIMARY KEY (id)",
        "OutreachStep_pkey": "PRIMARY KEY (id)",
        "OutreachStep_sequenceId_fkey": 'FOREIGN KEY ("sequenceId") REFERENCES "OutreachSequence"(id)'
        " ON UPDATE CASCADE ON DELETE CASCADE",
        "OutreachStep_outreachLogId_fkey": 'FOREIGN KEY ("outreachLogId") REFERENCES "OutreachLog"(id)'
        " ON UPDATE CASCADE ON DELETE SET NULL",
    }
    indexes: dict[str, str] = dict(
        baseline("SELECT indexname, indexdef FROM pg_indexes WHERE indexname ~ '^OutreachStep_.*_(key|idx)$'")
    )
    start = 'INDEX "{}" ON public."OutreachStep" USING btree'
    assert indexes == {
        (name := "OutreachStep_sequenceId_stepOrder_key"): f"CREATE UNIQUE {start.format(name)}"
        ' ("sequenceId", "stepOrder")',
        (name := "OutreachStep_outreachLogId_idx"): f'CREATE {start.format(name)} ("outreachLogId")',
    }


def test_the_cadence_columns_are_nullable_and_have_no_default(cadence: Rows) -> None:
    """The three columns stand behind the old ones, nullable and without a default; the index is plain and valid."""
    assert columns(cadence, "OutreachStep") == listed(f"{TABLES['OutreachStep']}, {CADENCE_COLUMNS}")
    found = cadence(
        """SELECT pg_get_indexdef(indexrelid), indisvalid FROM pg_index
            WHERE indexrelid = '"OutreachStep_nextStepReadyAt_idx"'::regclass"""
    )
    name = "OutreachStep_nextStepReadyAt_idx"
    assert found == [(f'CREATE INDEX "{name}" ON public."OutreachStep" USING btree ("nextStepReadyAt")', True)]


def test_what_was_there_before_is_not_touched(before: DatabaseBefore, baseline: Rows) -> None:
    """Rows from before have nulls in the new columns, and were not written anew: there is no backfill."""
    baseline(ADD_SEQUENCE)
    baseline(ADD_STEP)
    old = baseline('SELECT xmin::text, ctid::text, "id", "createdAt" FROM "OutreachStep"')
    file = baseline("""SELECT pg_relation_filenode('"OutreachStep"')""")
    before.apply()
    assert baseline('SELECT xmin::text, ctid::text, "id", "createdAt" FROM "OutreachStep"') == old
    assert baseline("""SELECT pg_relation_filenode('"OutreachStep"')""") == file
    new = baseline('SELECT "scheduledAt", "triggeredBy", "nextStepReadyAt" FROM "OutreachStep"')
    assert new == [(None, None, None)]


@pytest.mark.parametrize("insert", [ADD_STEP, ADD_STEP_WITHOUT_NAMES])
def test_an_insert_of_before_still_works(cadence: Rows, insert: Any) -> None:
    """An application that was written before the migration goes on, even one that names no columns."""
    cadence(ADD_SEQUENCE)
    cadence(insert)
    assert cadence('SELECT "status", "nextStepReadyAt" FROM "OutreachStep"') == [("planned", None)]


def test_a_prepared_insert_survives_the_migration(before: DatabaseBefore, baseline: Rows) -> None:
    """An application that runs through the migration goes on with the statement that it prepared before."""
    baseline(ADD_SEQUENCE)
    baseline(
        """PREPARE add_step(text, int) AS
           INSERT INTO "OutreachStep" ("id", "updatedAt", "stepOrder", "status", "sequenceId")
           VALUES ($1, now(), $2, 'planned', 's') RETURNING "id" """
    )
    assert baseline("EXECUTE add_step('a', 1)") == [("a",)]
    before.apply()
    assert baseline("EXECUTE add_step('b', 2)") == [("b",)]


def test_finding_the_due_steps_scans_the_index(cadence: Rows) -> None:
    """Of 200,000 steps the 500 that are due are found by the index on "nextStepReadyAt"."""
    cadence(ADD_SEQUENCE)
    cadence(
        """
        INSERT INTO "OutreachStep" ("id", "updatedAt", "stepOrder", "status", "sequenceId", "nextStepReadyAt")
        SELECT n, now(), n, 'sent', 's', CASE WHEN n % 400 = 0 THEN now() - n * interval '1 s'
               WHEN n % 2 = 0 THEN now() + n * interval '1 s' + interval '1 day' END
          FROM generate_series(1, 200000) AS n"""
    )
    cadence('ANALYZE "OutreachStep"')
    due = """SELECT "id" FROM "OutreachStep" WHERE "nextStepReadyAt" <= NOW()"""
    assert len(cadence(due)) == 500
    [(explained,)] = cadence(f"EXPLAIN (FORMAT JSON) {due}")
    assert {node.get("Index Name") for node in nodes(explained[0]["Plan"])} >= {"OutreachStep_nextStepReadyAt_idx"}
    assert "Seq Scan" not in {node["Node Type"] for node in nodes(explained[0]["Plan"])}


def nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node, *(found for child in node.get("Plans", []) for found in nodes(child))]


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ("""DELETE FROM "OutreachSequence" WHERE "id" = 's'""", []),
        ("""UPDATE "OutreachSequence" SET "id" = 't'""", [("a", "t")]),
    ],
)
def test_steps_follow_their_sequence(cadence: Rows, change: Any, left: list[tuple[str, str]]) -> None:
    """A sequence that goes takes its steps along; one that is renamed keeps them."""
    cadence(ADD_SEQUENCE)
    cadence(ADD_STEP)
    cadence(change)
    assert cadence('SELECT "id", "sequenceId" FROM "OutreachStep"') == left


def test_a_steps_order_is_unique_in_its_sequence(cadence: Rows) -> None:
    """Two steps of a sequence cannot have the same place in it."""
    cadence(ADD_SEQUENCE)
    cadence(ADD_STEP)
    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        cadence(ADD_STEP_WITHOUT_NAMES.replace("2, 'Hello'", "1, 'Hello'"))
    assert caught.value.diag.constraint_name == "OutreachStep_sequenceId_stepOrder_key"
