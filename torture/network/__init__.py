"""The way between two programs: a proxy that can break it. Knows nothing of okane."""
