"""The floor of `up`: psycopg in a bare loop, one message a file, BEGIN; file; INSERT; COMMIT."""

import os
import sys

import psycopg


def main() -> None:
    """Take the database's URL and the folder."""
    url, folder = sys.argv[1:]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE schema_migrations (version text PRIMARY KEY)")
        for name in sorted(os.listdir(folder)):
            with open(os.path.join(folder, name), "rb") as file:
                sql = file.read()
            entry = f"INSERT INTO schema_migrations VALUES ('{name.partition('_')[0]}')"
            connection.execute(b"BEGIN;" + sql + b";" + entry.encode() + b";COMMIT")


if __name__ == "__main__":
    main()
