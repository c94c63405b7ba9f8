"""What lets an operator watch a server, each part only if it is asked for. docs/operations.md is for operators.

    monitors.py  makes the others for a service; server/__main__.py makes a Monitors
    metrics.py   the registry, and what is counted when a call ends
    parts.py     what the parts of a server hold, read at each scrape
    port.py      the HTTP port that Prometheus scrapes
    tracing.py   OpenTelemetry spans of each call

server/deploy/ has a dashboard and alerts for these metrics.
"""
