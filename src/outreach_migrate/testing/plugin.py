"""The plug-in's options and fixtures; nothing else of the program is imported before a fixture is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from outreach_migrate.testing.databases import Database, DatabaseBefore
    from outreach_migrate.testing.session import PluginSession


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, and the setting of the seeds."""
    group = parser.getgroup("outreach-migrate", "databases that have all migrations")
    group.addoption("--migrate-database", metavar="URL", help="The server for tests, by any of its databases.")
    group.addoption("--migrate-keep", action="store_true", help="Keep the database of a failed test; print its URL.")
    parser.addini("migrate_seed", "SQL files that are run after the migrations.", type="paths", default=[])


@pytest.fixture(scope="session")
def _migrations(pytestconfig: pytest.Config) -> Iterator[PluginSession]:
    from outreach_migrate.testing import session

    with session.opened(pytestconfig) as opened:
        yield opened


@pytest.fixture
def migrated_database(_migrations: PluginSession, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database of the test's own that has all migrations and seeds: `.url`, `.connect()`, `.name`."""
    with _migrations.database(request.node) as database:
        yield database


@pytest.fixture
def migrated_connection(_migrations: PluginSession) -> Iterator[psycopg.Connection]:
    """A connection to a database that has all migrations and seeds, in a transaction that is rolled back."""
    with _migrations.connection() as connection:
        yield connection


@pytest.fixture(scope="session")
def migrated_template(_migrations: PluginSession) -> Iterator[Database]:
    """A read-only database that has all migrations and seeds, shared by the tests of this process."""
    with _migrations.template() as database:
        yield database


@pytest.fixture
def migration_at(
    _migrations: PluginSession, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], DatabaseBefore]]:
    """A function that makes a database just before a version; its `.apply()` applies that migration."""
    with _migrations.before(request.node) as made:
        yield made
