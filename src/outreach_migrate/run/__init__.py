"""The engine: plans a run and carries it out."""
