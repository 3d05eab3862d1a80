"""A local Stripe for `okane up --stripe` and the conformance tests: Stripe World, in a Python of its own."""
