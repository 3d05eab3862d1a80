"""The receiver of webhooks: an HTTP server with a journal of its own, which accepts, fails and lies as the nemesis wants."""
