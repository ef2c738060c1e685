"""A plan carried out and rolled back, and its effects on other sessions."""
