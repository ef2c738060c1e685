"""outreach-migrate beside what people use today: `make bench`. No test, and nothing here asserts a time."""
