"""A TCP proxy between two programs that can break their connections. Independent of okane."""
