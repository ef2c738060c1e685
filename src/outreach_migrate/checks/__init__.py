"""Checks of files and of a database, which change nothing."""
