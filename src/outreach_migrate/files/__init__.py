"""The folder of migrations, and the SQL in them."""
