"""The result of a run, as values and as text, and the display of its progress."""
