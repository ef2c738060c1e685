"""What a command prints: text, JSON, GitHub, Markdown. The only place that words anything."""
