"""The programs behind the figures in the README and the docs. Each prints its measurements; none is a test."""
