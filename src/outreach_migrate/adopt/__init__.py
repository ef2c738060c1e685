"""The takeover of a folder that another tool made."""
