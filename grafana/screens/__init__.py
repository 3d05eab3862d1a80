"""Pictures of the dashboards, drawn from what a Prometheus has: for a README, and for whoever changes a dashboard.

Not Grafana: the same queries, places, units, legends and thresholds, drawn by matplotlib.
"""
