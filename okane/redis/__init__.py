"""Okane's own data in Redis, beside the streams: rate-limit buckets and the list of running processes."""
