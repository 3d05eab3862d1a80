"""The system under test: servers and processes on this machine, the links between them, and their failpoints."""
