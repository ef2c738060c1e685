"""Lets `python -m outreach_migrate` do what `outreach-migrate` does."""

from outreach_migrate.cli import main

main()
