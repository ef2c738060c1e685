"""The fixtures of all tests, as plug-ins by subject."""

pytest_plugins = [
    "fix_servers",
    "fix_waiting",
    "fix_private_server",
    "fix_pgbouncer",
    "fix_citus",
    "fix_cli",
    "fix_tools",
    "fix_proxy",
    "fix_faults",
    "fix_plugin",
    "pytester",
    "outreach_migrate.testing.plugin",
]
