"""What a PromQL query asks for: the metrics that it names, and the labels of each that it needs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

import promql_parser as promql

# Labels that Prometheus adds to every series that it scrapes.
OF_PROMETHEUS = {"job", "instance"}
# What Grafana puts in for its variables, where PromQL would not take the variable itself.
GRAFANA = {"$__rate_interval": "5m", "$__interval": "1m", "$__range": "1h"}


def parsed(query: str) -> promql.Expr:
    """The query's tree. Raises ValueError if it is no PromQL."""
    for variable, value in GRAFANA.items():
        query = query.replace(variable, value)
    return promql.parse(re.sub(r"\$\{?(\w+)\}?", r"\1", query))


def needed(query: str) -> dict[str, set[str]]:
    """The metrics that a query names, with the labels that it matches and groups by."""
    needs: defaultdict[str, set[str]] = defaultdict(set)
    for metric, labels in _selected(parsed(query), frozenset()):
        needs[metric] |= labels
    return dict(needs)


def _selected(node: promql.Expr | None, by: frozenset[str]) -> Iterator[tuple[str, set[str]]]:
    """Each selector's metric and labels. by: labels that the aggregations around it keep, and operators match on."""
    match node:
        case promql.VectorSelector():
            yield str(node.name), {matcher.name for matcher in node.matchers.matchers} | by
        case promql.MatrixSelector():
            yield from _selected(node.vector_selector, by)
        case promql.AggregateExpr():
            yield from _selected(node.expr, frozenset(node.modifier.labels if node.modifier else ()))
        case promql.BinaryExpr():
            matching = node.modifier.matching if node.modifier else None
            on = frozenset(matching.labels) if matching else by
            yield from _selected(node.lhs, on)
            yield from _selected(node.rhs, on)
        case promql.Call():
            for argument in node.args:
                yield from _selected(argument, by)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            yield from _selected(node.expr, by)
