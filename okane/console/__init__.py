"""The console: web pages for operators and support, rendered on the server. A process of its own; it keeps no state."""
