"""Files that pg_dump wrote are applied as they are, with their data."""

from __future__ import annotations

import re
import subprocess

import fix_servers
import psycopg
import pytest
from fix_cli import Migrate

from outreach_migrate.errors import MissingTool
from outreach_migrate.schema import pg_dump

# "Grüße" and the emoji are more than a byte; the texts have signs that COPY's format escapes, and one like its end
SCHEMA = r"""
CREATE SCHEMA app;
CREATE EXTENSION IF NOT EXISTS citext SCHEMA app;
CREATE TYPE app.mood AS ENUM ('sad', 'it''s ok', 'grüße');
CREATE DOMAIN app.positive AS int CHECK (VALUE > 0);
CREATE TYPE app.pair AS (a int, b text);
CREATE FUNCTION app.twice(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $body$
BEGIN
  -- COPY app.people FROM stdin;
  RETURN n * 2;
END $body$;
CREATE FUNCTION app.sum(a int, b int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT a + b; END;
CREATE TABLE app.people (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL DEFAULT E'it''s \\. new',
    mail app.citext UNIQUE,
    age app.positive,
    mood app.mood DEFAULT 'sad',
    doubled int GENERATED ALWAYS AS (app.twice(age::int)) STORED,
    extra jsonb, "Odd; name" app.pair[], picture bytea,
    EXCLUDE USING gist (int4range(age, age, '[]') WITH &&)
);
CREATE TABLE app.events (id serial, at date NOT NULL, what text) PARTITION BY RANGE (at);
CREATE TABLE app.events_2025 PARTITION OF app.events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE app.events_rest PARTITION OF app.events DEFAULT;
CREATE INDEX ON app.events (at);
CREATE TABLE app.notes (person bigint REFERENCES app.people ON DELETE CASCADE, body text);
CREATE TABLE app.empty ();
CREATE UNLOGGED TABLE app.nothing (n int);
CREATE MATERIALIZED VIEW app.counted AS SELECT mood, count(*) FROM app.people GROUP BY mood;
CREATE VIEW app.adults WITH (security_barrier) AS SELECT * FROM app.people WHERE age >= 18;
CREATE RULE none AS ON DELETE TO app.empty DO INSTEAD NOTHING;
CREATE FUNCTION app.stamp() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN NEW.body := upper(NEW.body); RETURN NEW; END $$;
CREATE TRIGGER stamp BEFORE INSERT ON app.notes FOR EACH ROW EXECUTE FUNCTION app.stamp();
ALTER TABLE app.notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON app.notes FOR SELECT TO {role} USING (body <> 'x');
GRANT USAGE ON SCHEMA app TO {role};
GRANT SELECT (name), INSERT ON app.people TO {role};
ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO {role};
ALTER TABLE app.events OWNER TO {role};
COMMENT ON TABLE app.people IS E'a comment;\n\\restrict it\n\\.\nCOPY app.people FROM stdin;\n--';
COMMENT ON COLUMN app.people.name IS 'BEGIN; COMMIT;';
INSERT INTO app.people (name, mail, age, mood, extra, "Odd; name", picture) VALUES
    (E'a\tb\nc\\d\r\n', 'A@x', 1, 'grüße', '{{"a": [1, null]}}', ARRAY[(1, E'\\.')::app.pair], '\x00ff'),
    ('\.', NULL, 2, NULL, NULL, NULL, NULL), ('\restrict x', 'B@x', 30, 'it''s ok', '"COMMIT;"', NULL, ''),
    ('', 'C@x', 40, DEFAULT, 'null', '{{}}', NULL), ('Grüße 🎉', 'D@x', 99, DEFAULT, NULL, NULL, NULL);
INSERT INTO app.people (name, age) SELECT repeat('large ', 200000), 50;
INSERT INTO app.events (at, what) SELECT '2025-12-30'::date + n, 'COMMIT; -- ' || n FROM generate_series(1, 5) AS n;
INSERT INTO app.notes VALUES (1, 'a note'), (NULL, E'\\N');
REFRESH MATERIALIZED VIEW app.counted;
"""


@pytest.fixture
def program(server_url: str) -> str:
    """The path of a pg_dump whose settings the server knows."""
    with psycopg.connect(server_url) as connection:
        version = connection.info.server_version // 10000
    try:
        found = pg_dump._program(version)
    except MissingTool as error:
        pytest.skip(f"no pg_dump: {error}")
    if version < 17 <= (pg_dump._major(found) or 0):
        pytest.skip(f"{found} sets transaction_timeout, which the server lacks")
    return found


def dumped(program: str, url: str, *options: str) -> str:
    """Dump a database without the history."""
    command = [program, "--exclude-table=public.schema_migrations", *options, url]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def unlocked(dump: str) -> str:
    """Take the key out of a dump, because each has another one."""
    return re.sub(r"(?m)^(\\(?:un)?restrict) \w+$", r"\1", dump)


@pytest.mark.parametrize("options", [["--schema-only"], ["--inserts"], []])
def test_a_dump_is_restored(
    migrate: Migrate, server_url: str, role: tuple[str, str], program: str, options: list[str]
) -> None:
    """A dump, applied by `up` to an empty database, is dumped again as it was; a rehearsal before it leaves nothing."""
    with fix_servers.fresh_database(server_url) as url:
        with psycopg.connect(url) as connection:
            connection.execute(SCHEMA.format(role=role[0]).encode())
        original = dumped(program, url, *options)
    rehearsed = migrate("rehearse", files=[original])
    assert rehearsed.exit_code == 0, rehearsed
    assert migrate("check").exit_code == 0
    applied = migrate("up")
    assert applied.exit_code == 0, applied
    assert unlocked(dumped(program, migrate.url, *options)) == unlocked(original)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("SET no_such_timeout = 0;", "an older server lacks"),
        ("CREATE TABLE t ();\nALTER TABLE t OWNER TO nobody_here;", "--no-owner"),
        ("GRANT USAGE ON SCHEMA public TO nobody_here;", "--no-privileges"),
        ("CREATE SCHEMA public;", "IF NOT EXISTS"),
    ],
)
def test_a_dump_of_another_server_fails_with_a_way_out(migrate: Migrate, text: str, hint: str) -> None:
    """psql goes on after such an error; here the file fails, and the hint names the change."""
    run = migrate("up", files=[text])
    assert run.exit_code == 1
    assert hint in run.stderr
    assert "no-transaction" not in run.stderr
