"""The console in a real browser: Debian's Chromium, driven by Playwright. Skipped by name where it is not installed."""
