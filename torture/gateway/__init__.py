"""A gateway with Stripe's protocol, as far as torture needs it: a program whose journal survives kill -9."""
