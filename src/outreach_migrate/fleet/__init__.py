"""Many targets at once: find them, look at them, migrate them."""
