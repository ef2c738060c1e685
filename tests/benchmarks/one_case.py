"""The tests whose fixture is measured; run by pytest with the Python of each peer, so it imports what that has."""

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

CASE, TESTS, RESULT = os.environ["BENCH_CASE"], int(os.environ["BENCH_TESTS"]), Path(os.environ["BENCH_RESULT"])
URL, FOLDER = os.environ["BENCH_URL"], Path(os.environ["BENCH_FOLDER"])
WAITS: list[float] = []
BEGINNINGS: list[float] = []
FILES = sorted(FOLDER.glob("*.sql"))

if CASE == "postgresql":
    from pytest_postgresql import factories

    given = psycopg.conninfo.conninfo_to_dict(URL)
    postgresql_noproc = factories.postgresql_noproc(
        host=given["host"], port=5432, user="postgres", dbname=f"bench_{secrets.token_hex(4)}", load=[*FILES]
    )
    postgresql = factories.postgresql("postgresql_noproc")


@pytest.fixture(scope="session")
def admin() -> Iterator[psycopg.Connection]:
    with psycopg.connect(URL, autocommit=True) as connection:
        yield connection


def made(admin: psycopg.Connection, template: str) -> Iterator[str]:
    name = f"bench_{secrets.token_hex(4)}"
    admin.execute(f"CREATE DATABASE {name} {template}".encode())
    yield psycopg.conninfo.make_conninfo(URL, dbname=name)
    admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def empty(admin: psycopg.Connection) -> Iterator[str]:
    yield from made(admin, "")


@pytest.fixture(scope="session")
def template(admin: psycopg.Connection) -> Iterator[str]:
    for url in made(admin, ""):
        migrate(url)
        yield str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])


@pytest.fixture
def bare(admin: psycopg.Connection, template: str) -> Iterator[str]:
    yield from made(admin, f"TEMPLATE {template}")


@pytest.fixture
def files(admin: psycopg.Connection, template: str) -> Iterator[str]:
    yield from made(admin, f"TEMPLATE {template} STRATEGY file_copy")


@pytest.fixture
def anew(admin: psycopg.Connection) -> Iterator[str]:
    for url in made(admin, ""):
        migrate(url)
        yield url


@pytest.fixture
def command(admin: psycopg.Connection) -> Iterator[str]:
    for url in made(admin, ""):
        arguments = ["--database", url, "--dir", str(FOLDER), "up"]
        subprocess.run([sys.executable, "-m", "outreach_migrate", *arguments], check=True, capture_output=True)
        yield url


def migrate(url: str) -> None:
    import outreach_migrate

    outreach_migrate.up(url, folder=FOLDER)


@pytest.fixture
def pglite() -> Iterator[str]:
    """A new PGlite for each test: what its own fixtures share, a test of migrations may not."""
    from py_pglite import PGliteConfig, PGliteManager

    place = FOLDER.parent / "pglite"  # its npm packages are installed there, once
    place.mkdir(exist_ok=True)
    (place / "pglite_manager.js").unlink(missing_ok=True)  # has the last one's socket
    with PGliteManager(PGliteConfig(work_dir=place)) as manager:
        dsn = f"{manager.get_dsn()} sslmode=disable gssencmode=disable"  # it has neither, and hangs up when asked
        with patient(dsn) as connection:
            for file in FILES:
                connection.execute(file.read_bytes())
        yield dsn


def patient(dsn: str) -> psycopg.Connection:
    deadline = time.monotonic() + 10
    while True:
        try:
            return psycopg.connect(dsn, autocommit=True)
        except psycopg.OperationalError:  # its socket is there before it answers
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.fixture
def timed(request: pytest.FixtureRequest) -> None:
    BEGINNINGS.append(time.monotonic())
    request.getfixturevalue(CASE)
    WAITS.append(time.monotonic() - BEGINNINGS[-1])
    if CASE == "migrated_database" and len(WAITS) == 1:
        with request.getfixturevalue(CASE).connect() as connection:
            connection.execute("SELECT FROM bench_1")  # else these are other migrations


@pytest.fixture(scope="session", autouse=True)
def written() -> Iterator[None]:
    """Write the samples; the first test's is left out, because it has the session's start in it."""
    yield
    whole = (BEGINNINGS[-1] - BEGINNINGS[1]) / (len(BEGINNINGS) - 2)
    RESULT.write_text(json.dumps({"waits": WAITS[1:], "whole": whole}))


@pytest.mark.parametrize("number", range(TESTS + 1))
def test_one(timed: None, number: int) -> None:
    pass
