"""What produces the figures in the README and the docs. Each prints what it measured; none is a test."""
