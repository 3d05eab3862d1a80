"""An HTTP handler that only reads and validates the body: what aiohttp and pydantic alone can do."""
