"""The history table; no other package has its SQL."""
