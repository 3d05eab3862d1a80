"""What is known of a run: the journals that were kept of it, independently of each other, and how they come together."""
