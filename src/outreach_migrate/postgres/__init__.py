"""PostgreSQL: where it is, how to reach it, who else is there."""
