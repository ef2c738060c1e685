"""The plug-in's state in one process: the server, the templates and the copies."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import psycopg
import pytest

from outreach_migrate import errors
from outreach_migrate.postgres import connections, dsn
from outreach_migrate.report import sentences, terminal
from outreach_migrate.testing import recipe, servers, templates, undone
from outreach_migrate.testing.copies import Copies
from outreach_migrate.testing.databases import Database, DatabaseBefore, Url
from outreach_migrate.testing.recipe import Recipe
from outreach_migrate.testing.servers import Server
from outreach_migrate.testing.templates import Template

_copies_of = pytest.StashKey[list[str]]()


@contextmanager
def opened(config: pytest.Config) -> Iterator[PluginSession]:
    """Find the server and read the files; skip where there is no server, fail where something is wrong."""
    root = config.inipath.parent if config.inipath else config.rootpath
    keep = bool(config.option.migrate_keep)
    with ExitStack() as stack:
        with _in_few_words():
            asked = recipe.read(root, config.getini("migrate_seed"))
            server = stack.enter_context(servers.found(config, root, keep=keep))
        session = PluginSession(server, asked)
        stack.callback(session.close)
        if keep:
            config.pluginmanager.register(Keeping(session))
        yield session


@contextmanager
def _in_few_words() -> Iterator[None]:
    """Fail the test with the error's own words, without a traceback or the errors that led to it, or skip it."""
    try:
        yield
    except servers.NoServer as absent:
        pytest.skip(str(absent))
    except (errors.ConnectionFailed, psycopg.Error) as error:
        reason = connections.reason(error) if isinstance(error, psycopg.Error) else str(error)
        first = terminal.plain(reason).partition("\n")[0]  # the other lines, and the hint, are for commands
        raise pytest.fail.Exception(f"error: the server for tests: {first}", pytrace=False) from None
    except errors.MigrateError as error:
        raise pytest.fail.Exception(terminal.plain(sentences.error(error)), pytrace=False) from None


class PluginSession:
    """The server and the files of a run, and the databases that this process has made."""

    def __init__(self, server: Server, asked: Recipe) -> None:
        self._server = server
        self._recipe = asked
        self._copies = Copies(server)
        self._templates: dict[tuple[object, ...], Template] = {}
        self._failed: dict[tuple[object, ...], errors.StatementError] = {}
        self._reused: tuple[str, undone.Connection] | None = None

    def close(self) -> None:
        """Drop all copies of this process."""
        self._forget()
        self._copies.close()

    @contextmanager
    def database(self, item: pytest.Item) -> Iterator[Database]:
        """Give a test a copy of its own."""
        with self._copy(self._recipe, item) as name, ExitStack() as opened:
            yield Database(name, self._url(name), opened)

    @contextmanager
    def before(self, item: pytest.Item) -> Iterator[Callable[[str], DatabaseBefore]]:
        """Give a test the function that makes a database just before a version."""
        with ExitStack() as stack:

            def made(version: str) -> DatabaseBefore:
                with _in_few_words():
                    asked, migration = self._recipe.before(version)
                name = stack.enter_context(self._copy(asked, item))
                opened = stack.enter_context(ExitStack())
                schema = self._server.target.schema
                return DatabaseBefore(name, self._url(name), opened, migration.version, self._recipe, schema)

            yield made

    @contextmanager
    def template(self) -> Iterator[Database]:
        """Give a copy for all tests of the process; its transactions are read-only unless one asks for more."""
        with _in_few_words():
            name = self._copies.make(self._template(self._recipe).read_only())
        try:
            with ExitStack() as opened:
                yield Database(name, self._url(name), opened)
        finally:
            self._copies.drop(name)

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection]:
        """Give a connection to the copy that this process uses again, in a transaction that is rolled back."""
        with _in_few_words():
            if self._reused is None:
                name = self._copies.make(self._template(self._recipe))
                self._reused = name, undone.Connection.connect(self._url(name))
            connection = self._reused[1]
            try:
                connection.begin()
            except psycopg.Error:
                self._forget()
                raise
        try:
            yield connection
        finally:
            if not connection.undo():
                self._forget()

    def keep(self, item: pytest.Item) -> Iterator[str]:
        """Keep the databases of a test; give their URLs, without the password."""
        for name in item.stash.get(_copies_of, []):
            with suppress(psycopg.Error, errors.MigrateError):  # the server may be the reason why the test failed
                self._copies.keep(name)
                self._server.stay()
                yield self._where(name)
        item.stash[_copies_of] = []

    @contextmanager
    def _copy(self, asked: Recipe, item: pytest.Item) -> Iterator[str]:
        with _in_few_words():
            name = self._copies.make(self._template(asked))
        item.stash.setdefault(_copies_of, []).append(name)
        try:
            yield name
        finally:
            if name in item.stash[_copies_of]:  # else it was kept
                item.stash[_copies_of].remove(name)
                self._copies.drop(name)

    def _template(self, asked: Recipe) -> Template:
        key = (len(asked.migrations), asked.seeds)
        if key in self._failed:  # the same files would fail again, and each test would wait for it
            raise self._failed[key]
        if key not in self._templates:
            if not self._templates:
                self._copies.later(partial(templates.clean, self._server))
            try:
                self._templates[key] = templates.ready(self._server, self._copies.connection, asked)
            except errors.StatementError as error:
                self._failed[key] = error
                raise
        return self._templates[key]

    def _url(self, name: str) -> Url:
        return Url(dsn.url(self._server.database(name)))

    def _where(self, name: str) -> str:
        """Write a kept database's URL without the password, and how long it stays."""
        target = self._server.database(name)
        lines = [dsn.url(target, password=False)]
        if "password" in target.parameters:
            lines.append(f"The password is that of {self._server.origin}.")
        until = "a run without --migrate-keep ends" if self._server.folder else "a week has passed"
        return "\n".join([*lines, f"It is there until {until}."])

    def _forget(self) -> None:
        """Drop the copy that is used again, because a test has changed it, or its connection is lost."""
        if self._reused:
            name, connection = self._reused
            connection.close()
            self._copies.drop(name)
            self._reused = None


class Keeping:
    """The hook that keeps the databases of failed tests."""

    def __init__(self, session: PluginSession) -> None:
        self._session = session

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add the URLs to the report of a test that failed."""
        report = yield
        if report.failed:
            report.sections += [("database kept", url) for url in self._session.keep(item)]
        return report
