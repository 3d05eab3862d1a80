"""The dashboards as code: `python -m grafana` writes what stands in dashboards/ and in docs/metrics.md.

Only a checkout has this, and only who changes a dashboard needs it: Grafana reads the JSON.
"""
