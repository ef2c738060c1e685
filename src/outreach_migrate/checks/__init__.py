"""Trouble looked for without changing anything."""
