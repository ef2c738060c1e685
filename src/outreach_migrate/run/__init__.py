"""A plan made and carried out."""
