"""Pictures of the dashboards, drawn from the data of a Prometheus, for the README and for reviews of a changed dashboard.

Not Grafana: the same queries, places, units, legends and thresholds, drawn by matplotlib.
"""
