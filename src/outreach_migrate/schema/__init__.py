"""The migrated schema read back, from a scratch database among others."""
