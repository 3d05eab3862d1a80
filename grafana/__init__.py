"""The dashboards as code: `python -m grafana` writes dashboards/ and docs/metrics.md.

It is part of a checkout only, and needed only to change a dashboard: Grafana reads the JSON.
"""
