"""A command's output as text, JSON, GitHub's commands or Markdown; no other package words it."""
