"""The history table: read and written here, and nowhere else."""
