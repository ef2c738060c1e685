"""Applies plain, versioned .sql files to PostgreSQL, each in one transaction with its row."""

__version__ = "0.1.0"
