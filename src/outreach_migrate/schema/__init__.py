"""The migrated schema read back, from a database or from a scratch database."""
