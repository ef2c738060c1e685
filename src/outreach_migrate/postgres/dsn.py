"""The database's name: a URL or key=value pairs, as applications have them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode

import psycopg
from psycopg import conninfo, pq, sql

from outreach_migrate.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLES = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE")

# Scheme, login, place, query, cut as libpq cuts them: a login ends at the first @, unless a / comes before.
_URL = re.compile(r"postgres(?:ql)?(?:\+\w+)?://([^@/]*@)?([^?]*)(?:\?(.*))?", re.DOTALL)
# The parameters that drivers and ORMs put into DATABASE_URL beside libpq's own.
_FOREIGN = {
    *("schema", "connection_limit", "pool_timeout", "pgbouncer", "socket_timeout", "statement_cache_size"),
    *("sslaccept", "sslidentity", "max_connection_lifetime", "max_idle_connection_lifetime", "single_use_connections"),
    *("prepared_statement_cache_size", "prepared_statement_name_func", "prepare_threshold", "autocommit"),
    *("pool_size", "max_overflow", "uselibpqcompat", "supa", "workaround", "prepareThreshold"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """A database to connect to. `schema` goes to the front of the search path (Prisma's parameter)."""

    parameters: Mapping[str, str] = field(repr=False)
    schema: str | None = None

    @property
    def hosts(self) -> list[str]:
        """The servers, as named here or by libpq's variables: by name, else by address, else by the socket's folder."""
        for name in ("host", "hostaddr"):
            if given := self._named(name):
                return given.split(",")
        # libpq names its socket's folder only after it has tried to connect; nothing listens on this port
        return [pq.PGconn.connect_start(b"port=1 user=x dbname=x").host.decode()]

    @property
    def name(self) -> str:
        """The names of the servers and of the database, without the login, and without port 5432."""
        if "service" in self.parameters and not self.parameters.get("host"):
            return f"service {self.parameters['service']}"
        hosts, ports = self.hosts, (self._named("port") or "5432").split(",")
        ports = ports * len(hosts) if len(ports) == 1 else ports
        shown = [host if port in {"", "5432"} else f"{host}:{port}" for host, port in zip(hosts, ports, strict=False)]
        return f"{','.join(shown)}/{self._named('dbname') or self._named('user')}"

    def _named(self, name: str) -> str:
        """Give a parameter, as named here or by libpq's variables."""
        defaults = {option.keyword.decode(): (option.val or b"").decode() for option in pq.Conninfo.get_defaults()}
        return self.parameters.get(name) or defaults[name]


def read(url: str) -> Target:
    """Read a URL or a key=value string; an empty one leaves everything to libpq's own variables.

    Raise UsageError when it can't be read. The message quotes none of it, because a parser may quote a piece of the
    password.
    """
    url, schema, query = url.strip(), None, url  # a secret read from a file ends with a newline
    try:
        if "://" in url.partition("=")[0]:
            url, query, schema = _without_foreign(url)
        parameters = {key: str(value) for key, value in conninfo.conninfo_to_dict(url).items() if value is not None}
        _check_ports(parameters.get("port", ""))
        _check_names(parameters)
    except (psycopg.Error, ValueError) as error:
        named = re.search(r'invalid (?:URI query parameter:|connection option) "(\w+)"', str(error))
        if named and not re.search("@|password", query):  # else it may be the rest of an unquoted password
            reason = f"it has a parameter that libpq does not know: {named[1]}"
        else:
            reason = re.sub(r'".*', "…", str(error).splitlines()[0])
            reason = reason.replace("missing …", "it is neither a postgresql:// URL nor key=value pairs")
        hint = "Signs such as @ : / % ? # in a password are written as %40 %3A %2F %25 %3F %23."
        raise UsageError(f"cannot read the database URL: {reason}", hint=hint) from None
    return Target(parameters, schema)


def _check_ports(ports: str) -> None:
    """Refuse a port that is not a number before a message quotes it, because in user:secret/db it is the password."""
    for port in ports.split(","):
        if port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
            raise ValueError("its port is not a number from 1 to 65535")


def _check_names(parameters: Mapping[str, str]) -> None:
    """Refuse a URL as the value of a keyword, because messages would quote it with its login."""
    for name in ("host", "hostaddr", "dbname", "user", "service"):
        if re.search(r"://|:\S*@", parameters.get(name, "")):
            raise ValueError(f"its {name} is a URL")


def for_psql(target: Target) -> tuple[list[str], dict[str, str]]:
    """Give a target as psql's arguments and variables; only passwords go as variables, because anybody sees arguments.

    Variables alone would not do, because the settings of a service (PGSERVICE) override them.
    """
    given = {name: value for name, value in target.parameters.items() if name not in {"password", "sslpassword"}}
    if target.schema:
        options = given.get("options", os.environ.get("PGOPTIONS", ""))
        given["options"] = f"{options} {_search_path(target.schema)}"
    password = target.parameters.get("password")
    return ["-d", conninfo.make_conninfo("", **given)], {"PGPASSWORD": password} if password else {}


def url(target: Target, *, password: bool = True) -> str:
    """Write a target as a postgresql:// URL: a socket's folder, or several hosts, as ?host=; the schema as options."""
    left = {name: value for name, value in target.parameters.items() if value and (password or "password" not in name)}
    user, secret = left.pop("user", ""), left.pop("password", "")
    login = quote(user, safe="") + (f":{quote(secret, safe='')}" if secret else "")
    place, dbname = "", left.pop("dbname", "")
    host = left.get("host", "/")
    if not host.startswith("/") and "," not in host:
        port = f":{left.pop('port')}" if "port" in left else ""
        place = (f"[{left.pop('host')}]" if ":" in host else quote(left.pop("host"), safe="")) + port
    if target.schema:
        left["options"] = f"{left.get('options', '')} {_search_path(target.schema)}".strip()
    query = f"?{urlencode(left, quote_via=quote, safe='')}" if left else ""
    return f"postgresql://{login}{'@' if login else ''}{place}/{quote(dbname, safe='')}{query}"


def _search_path(schema: str) -> str:
    path = re.sub(r"([\\\s])", r"\\\1", sql.Identifier(schema).as_string())
    return f"-c search_path={path}"


def _without_foreign(url: str) -> tuple[str, str, str | None]:
    """Turn SQLAlchemy's scheme into libpq's, and take out the parameters that are not libpq's."""
    match = _URL.fullmatch(url)
    if not match:
        raise ValueError("its scheme is not postgresql://")
    login, place, query = (part or "" for part in match.groups())
    if "@" in place:
        raise ValueError("its user or password has an @ or a / that must be percent-encoded")
    kept = [pair for pair in query.split("&") if pair and pair.partition("=")[0] not in _FOREIGN]
    schema = dict(parse_qsl(query)).get("schema") or None
    # libpq wants the signs in options=-c search_path=x encoded, but most drivers don't
    kept = ["options=" + quote(pair[8:], safe="%+") if pair.startswith("options=") else pair for pair in kept]
    return f"postgresql://{login}{place}" + ("?" + "&".join(kept) if kept else ""), query, schema
