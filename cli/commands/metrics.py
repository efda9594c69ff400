"""`orchestrate metrics`: the fleet's numbers for Prometheus."""

from __future__ import annotations

import click

from cli.options.settings import broker_option, option, required_broker
from domain.redaction import without_password
from storage.broker.connection import connect


@click.command()
@broker_option
@option("--port", of="metrics", default=9808, type=click.IntRange(0, 65535))
@option("--address", of="metrics", default="127.0.0.1", help="Address to listen on.")
@click.option("--once", is_flag=True, help="Print the metrics and stop.")
def metrics(broker_url: str | None, port: int, address: str, once: bool) -> None:
    """Serve the fleet's metrics to Prometheus; one of these is enough for all machines.

    Everything is read from the broker when it is asked for: samples by stage, tokens a second,
    queue age, judge calls and spending, retries, workers. deploy/grafana and deploy/prometheus
    show them and raise alarms.

    \b
    orchestrate metrics                       # http://127.0.0.1:9808/metrics
    orchestrate metrics --once | grep queue
    """
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.exposition import start_http_server

    from orchestrator.prometheus import FleetCollector

    url = required_broker(broker_url)
    connect(url).close()
    registry = CollectorRegistry()
    registry.register(FleetCollector(url))
    if once:
        click.echo(generate_latest(registry).decode(), nl=False)
        return
    server, thread = start_http_server(port, addr=address, registry=registry)
    click.echo(
        f"Metrics on http://{address}:{server.server_port}/metrics for the broker at "
        f"{without_password(url)}"
    )
    try:
        thread.join()
    finally:
        server.shutdown()
