"""What a run found out, as values and as text for a person, and what is shown while it goes on."""
