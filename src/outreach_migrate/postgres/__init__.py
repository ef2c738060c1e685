"""PostgreSQL: its address, connections and messages, other sessions, a private server."""
