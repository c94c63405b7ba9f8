"""server/deploy/: every query of the dashboard and the alerts asks for metrics that the server has, by labels that they have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from protos import ganforge_pb2 as pb
from server.limits import Limits
from server.monitoring.metrics import Metrics
from server.security.certificates import Certificates, Files
from tests.server.certificates import Authority
from tests.server.conftest import FakeGenerator, FakeUpscaler, Serve, png, refusal
from tests.server.queries import OF_PROMETHEUS, needed

DEPLOY = Path(__file__).resolve().parents[2] / "server" / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}

Exposed = Mapping[str, set[str]]


def queries() -> Iterator[tuple[str, str]]:
    """Every query, with where it is."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]


@pytest.fixture(scope="module")
def exposed(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Exposed:
    """The metrics of a server that speaks TLS and has refused calls, each with its labels."""
    served = serve(FakeUpscaler(), FakeGenerator(), limits=Limits(max_uploads_bytes=1))
    issued = Authority(tmp_path_factory.mktemp("tls")).issue("server")
    registry = Metrics(served.service, Certificates(Files(issued.cert, issued.key))).registry
    served.client.upscale(png(8, 8))
    parts = (
        pb.UpscaleStreamRequest(header=pb.UpscaleRequest()),
        pb.UpscaleStreamRequest(data=png(8, 8)),
    )
    refusal(lambda: list(served.stub.UpscaleStream(iter(parts))))
    return labels_of(registry) | {"up": set()}


def labels_of(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Every sample's name, with its labels; of a counter that has counted nothing yet, its name."""
    families = [*registry.collect()]
    unused = {f"{family.name}_total": set(family._labelnames) for family in families if not family.samples}  # type: ignore[attr-defined]
    return unused | {sample.name: set(sample.labels) for family in families for sample in family.samples}


@pytest.mark.parametrize(("where", "query"), [*queries()])
def test_every_query_asks_for_what_the_server_has(where: str, query: str, exposed: Exposed) -> None:
    for metric, labels in needed(query).items():
        assert metric in exposed, f"{where}: there is no metric {metric}"
        strangers = labels - exposed[metric] - OF_PROMETHEUS
        assert not strangers, f"{where}: {metric} has no labels {sorted(strangers)}"


def test_every_metric_of_ours_is_on_the_dashboard(exposed: Exposed) -> None:
    asked = {metric for panel in PANELS for target in panel["targets"] for metric in needed(target["expr"])}
    ours = {name.removesuffix("_created") for name in exposed if name.startswith("ganforge_")}
    endings = ("_bucket", "_sum", "_count", "_total", "")
    stems = {name.removesuffix(ending) for name in ours for ending in endings[:3] if name.endswith(ending)}
    plain = {
        name for name in ours if not name.endswith(endings[:3]) and name.removesuffix("_total") not in stems
    }
    missing = {name for name in stems | plain if not any(name + ending in asked for ending in endings)}
    assert missing == set()


def test_the_page_for_operators_lists_every_metric_with_its_labels(exposed: Exposed) -> None:
    documented: dict[str, set[str]] = {}
    for line in (DEPLOY.parents[1] / "docs" / "operations.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 5 and cells[1].startswith("`") and "_" in cells[1]:
            for name in re.findall(r"`(\w+)`", cells[1]):
                documented[name] = set(filter(None, cells[2].split(", ")))
    assert documented == {
        re.sub(r"_(count|sum|bucket)$", "", name): labels - {"le"}
        for name, labels in exposed.items()
        if not name.endswith("_created") and name != "up"
    }


def test_the_reader_of_queries_finds_metrics_and_labels() -> None:
    query = 'sum by (a) (rate(x{b="1"}[$__rate_interval])) / on (c) group_left y{d=~"$d"} > 1'
    assert needed(query) == {"x": {"a", "b"}, "y": {"c", "d"}}
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        needed("sum by (a (x)")


# The dashboard.


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """It asks for a data source instead of naming one, and has no id of the Grafana that it was made in."""
    assert VARIABLES["datasource"]["type"] == "datasource"
    assert "id" not in DASHBOARD
    sources = [each["datasource"] for panel in PANELS for each in (panel, *panel["targets"])]
    sources += [variable["datasource"] for variable in VARIABLES.values() if variable["type"] == "query"]
    assert {source["uid"] for source in sources} == {"${datasource}"}


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


# The alerts.


def test_each_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert rule["annotations"].keys() == {"summary", "description"}, rule["alert"]


def test_each_alert_has_a_case_in_which_it_fires() -> None:
    cases = (DEPLOY / "alerts.test.yml").read_text(encoding="utf-8")
    assert [rule["alert"] for rule in RULES if f'alertname="{rule["alert"]}"' not in cases] == []


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize("command", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts.test.yml")])
def test_promtool_agrees(command: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *command], cwd=DEPLOY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
