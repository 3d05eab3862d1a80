"""The comparison of a day's movements with a provider's own list."""
