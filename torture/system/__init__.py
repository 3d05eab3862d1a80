"""What is tortured: servers and processes on this machine, the links between them, and what each is to die of."""
