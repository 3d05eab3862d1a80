"""The archive of payments: table partitions that are written to files, read back, compared, and dropped."""
