"""A plan carried out and rolled back, and what it does to others meanwhile."""
