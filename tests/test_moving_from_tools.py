"""Projects that other tools made, and databases that they migrated: run by `make test-tools`."""

from __future__ import annotations

import pytest
from fix_cli import Migrate
from fix_servers import fresh_database
from fix_tools import Dump, Project

IMPORTED = ["prisma", "dbmate", "drizzle", "drizzle 1.x", "yoyo"]


@pytest.mark.parametrize("project", IMPORTED, indirect=True)
def test_an_empty_database_becomes_like_the_tools_own(
    project: Project, migrate: Migrate, dump: Dump, server_url: str
) -> None:
    """The folder is known by its shape, and `up` gives schema and rows as the tool did, in the tool's order."""
    imported = migrate("--json", "import", project.folder, *project.arguments)
    assert imported.exit_code == 0
    assert imported.json["tool"] == project.tool
    assert migrate("check", "--strict").exit_code == 0
    with fresh_database(server_url) as empty:
        assert migrate("up", url=empty).exit_code == 0
        assert dump(empty) == dump(migrate.url)
