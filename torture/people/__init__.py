"""The people beside the clients: operators, and what they see and use."""
