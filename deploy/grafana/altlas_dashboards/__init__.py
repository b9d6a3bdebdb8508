"""The Grafana dashboards as code. `generate.py` beside this package writes them to dashboards/."""
