"""Taking over a folder that another tool made."""
