"""server/deploy/: the unit, the Compose file and the Kubernetes manifests are valid, and say what this server understands."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from server.__main__ import main as serve
from server.client.server_commands import health
from server.options import Settings
from server.security.exposure import check_exposure

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "server" / "deploy"
# After the last call has ended: codecs and models end, and the last traces leave.
ENDING_S = 20
GIB = 2**30
UNITS = {"Gi": GIB, "G": GIB, "Mi": 2**20}


def read_yaml(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def unit() -> dict[str, list[str]]:
    """The settings of the systemd unit; each may be there more than once."""
    settings: dict[str, list[str]] = {}
    for line in (DEPLOY / "ganforge.service").read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            settings.setdefault(name, []).append(value)
    return settings


COMPOSE = read_yaml("compose.yaml")
MANIFESTS = {
    path.name: read_yaml(f"kubernetes/{path.name}") for path in (DEPLOY / "kubernetes").glob("*.yaml")
}
POD = MANIFESTS["deployment.yaml"]["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]
CONFIG_MAP = MANIFESTS["configmap.yaml"]["data"]


def size_bytes(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([A-Z]i?)", text).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


@dataclass(frozen=True)
class Deployment:
    """How a file starts the server. stop_s: until it is killed. memory_bytes: until it is killed too."""

    arguments: list[str]
    config: str | None
    stop_s: float
    memory_bytes: int

    def settings(self, folder: Path) -> Settings:
        """The settings that the server makes of its arguments and its configuration file."""
        arguments = list(self.arguments)
        if self.config is not None:
            copy = folder / "ganforge.toml"
            copy.write_text(self.config, encoding="utf-8")
            arguments[arguments.index("--config") + 1] = str(copy)
        return Settings.of(serve.make_context("serve", arguments).params)


def deployments() -> dict[str, Deployment]:
    systemd, compose = unit(), COMPOSE["services"]["ganforge"]
    (command,) = systemd["ExecStart"]
    pre_stop_s = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    return {
        "systemd": Deployment(
            shlex.split(command)[2:],
            (DEPLOY / "ganforge.toml").read_text(encoding="utf-8"),
            float(systemd["TimeoutStopSec"][0]),
            size_bytes(systemd["MemoryMax"][0]),
        ),
        "compose": Deployment(
            compose["command"],
            None,
            float(compose["stop_grace_period"].removesuffix("s")),
            size_bytes(compose["deploy"]["resources"]["limits"]["memory"]),
        ),
        "kubernetes": Deployment(
            CONTAINER["args"],
            CONFIG_MAP["ganforge.toml"],
            POD["terminationGracePeriodSeconds"] - pre_stop_s,
            size_bytes(CONTAINER["resources"]["limits"]["memory"]),
        ),
    }


@pytest.fixture(params=["systemd", "compose", "kubernetes"])
def deployment(request: pytest.FixtureRequest) -> Deployment:
    return deployments()[request.param]


# All three.


def test_others_reach_the_server_by_tls_only(deployment: Deployment, tmp_path: Path) -> None:
    settings = deployment.settings(tmp_path)
    security = settings.security
    assert security.tls_cert is not None
    assert security.tls_key is not None
    assert not security.insecure
    assert settings.listening.host == "0.0.0.0"
    check_exposure(settings.listening.host, tls=True, insecure=False)


def test_calls_may_finish_before_the_server_is_killed(deployment: Deployment, tmp_path: Path) -> None:
    assert deployment.stop_s >= deployment.settings(tmp_path).listening.grace_s + ENDING_S


def test_requests_may_take_a_part_of_the_memory_only(deployment: Deployment, tmp_path: Path) -> None:
    limits = deployment.settings(tmp_path).limits
    assert 2 * (limits.max_active_bytes + limits.max_transit_bytes) <= deployment.memory_bytes


def test_the_metrics_are_where_prometheus_looks(deployment: Deployment, tmp_path: Path) -> None:
    port = deployment.settings(tmp_path).monitoring.metrics_port
    (job,) = read_yaml("prometheus.yml")["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"ganforge:{port}"]}]
    assert f'job="{job["job_name"]}"' in (DEPLOY / "alerts.yml").read_text(encoding="utf-8")


def test_a_configuration_is_read_from_where_it_is_mounted() -> None:
    (mounted,) = [mount for mount in CONTAINER["volumeMounts"] if mount["name"] == "config"]
    assert [CONTAINER["args"][1]] == [f"{mounted['mountPath']}/{name}" for name in CONFIG_MAP]


def test_the_ports_are_those_that_the_image_exposes(deployment: Deployment, tmp_path: Path) -> None:
    settings = deployment.settings(tmp_path)
    (line,) = re.findall(r"^EXPOSE (.*)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.M)
    assert line.split() == [str(settings.listening.port), str(settings.monitoring.metrics_port)]


# systemd.


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_unit_and_finds_it_hardened(tmp_path: Path) -> None:
    text = (DEPLOY / "ganforge.service").read_text(encoding="utf-8")
    copy = tmp_path / "ganforge.service"
    copy.write_text(text.replace("/opt/ganforge/bin/ganforge", "/bin/true"), encoding="utf-8")
    for command in (("verify",), ("security", "--offline=true", "--threshold=20")):
        done = subprocess.run(
            ["systemd-analyze", *command, str(copy)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr
        assert "Unknown" not in done.stderr


def test_the_unit_reloads_and_restarts() -> None:
    settings = unit()
    assert settings["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert settings["Restart"] == ["always"]
    assert settings["DynamicUser"] == ["yes"]
    assert settings["LimitCORE"] == ["0"]


# Compose.


def test_the_compose_file_is_one() -> None:
    command = ["check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml")]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_compose_file_names_is_there() -> None:
    for service in COMPOSE["services"].values():
        assert set(service.get("secrets", ())) <= COMPOSE["secrets"].keys()
        for volume in service.get("volumes", ()):
            if isinstance(volume, dict):
                assert volume["type"] == "bind" or volume["source"] in COMPOSE["volumes"]
            elif volume.startswith("./"):
                assert (DEPLOY / volume.split(":")[0]).is_file(), volume
            else:
                assert volume.split(":")[0] in COMPOSE["volumes"]


def test_every_secret_of_the_server_is_mounted_where_its_flag_says() -> None:
    service = COMPOSE["services"]["ganforge"]
    named = re.findall(
        r"/run/secrets/([\w.-]+)", " ".join(service["command"]) + service["environment"]["GANFORGE_CA"]
    )
    assert sorted(named) == sorted(service["secrets"])


def test_only_the_server_is_published_to_others() -> None:
    for name, service in COMPOSE["services"].items():
        for port in service["ports"]:
            assert name == "ganforge" or port.startswith("127.0.0.1:")


# Kubernetes.


@pytest.mark.parametrize("name", sorted(MANIFESTS))
@pytest.mark.parametrize("version", ["1.30", "latest"])
def test_kubernetes_understands_every_manifest(name: str, version: str) -> None:
    wanted = kubernetes_validate.latest_version() if version == "latest" else version
    kubernetes_validate.validate(MANIFESTS[name], wanted, strict=True)


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_a_probe_is_a_command_that_the_image_has_and_it_ends_in_time(probe: str) -> None:
    command = CONTAINER[probe]["exec"]["command"]
    assert command[:2] == ["ganforge", "health"]
    timeout_s = health.make_context("health", command[2:]).params["timeout_s"]
    assert timeout_s + 3 <= CONTAINER[probe]["timeoutSeconds"] <= CONTAINER[probe]["periodSeconds"] + 5


def test_the_probes_know_the_certificates_authority() -> None:
    (tls,) = [mount for mount in CONTAINER["volumeMounts"] if mount["name"] == "tls"]
    environment = {each["name"]: each["value"] for each in CONTAINER["env"]}
    assert environment["GANFORGE_CA"] == f"{tls['mountPath']}/ca.crt"
    security = tomllib.loads(CONFIG_MAP["ganforge.toml"])["security"]
    assert {Path(security[key]).parent for key in ("tls_cert", "tls_key")} == {Path(tls["mountPath"])}


def test_everything_selects_the_same_pods() -> None:
    labels = MANIFESTS["deployment.yaml"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        MANIFESTS["deployment.yaml"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["service.yaml"]["spec"]["selector"],
        MANIFESTS["poddisruptionbudget.yaml"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["networkpolicy.yaml"]["spec"]["podSelector"]["matchLabels"],
        POD["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ]
    assert all(selector == labels for selector in selectors)
    assert MANIFESTS["service.yaml"]["spec"]["clusterIP"] == "None"
    target = MANIFESTS["horizontalpodautoscaler.yaml"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (
        "Deployment",
        MANIFESTS["deployment.yaml"]["metadata"]["name"],
    )


def test_the_pod_is_the_images_user_and_may_write_where_the_server_does() -> None:
    (uid,) = re.findall(r"--uid (\d+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert POD["securityContext"]["runAsUser"] == int(uid)
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"]
    writable = {mount["mountPath"] for mount in CONTAINER["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/tmp", "/home/ganforge/.cache"}
    sizes = {volume["name"]: volume.get("emptyDir", {}).get("sizeLimit") for volume in POD["volumes"]}
    limits = tomllib.loads(CONFIG_MAP["ganforge.toml"])["limits"]
    assert limits["max_disk_bytes"] < size_bytes(sizes["temporary"])


def test_pods_are_added_before_the_queue_is_full(tmp_path: Path) -> None:
    metrics = [each["pods"] for each in MANIFESTS["horizontalpodautoscaler.yaml"]["spec"]["metrics"]]
    wanted = {each["metric"]["name"]: int(each["target"]["averageValue"]) for each in metrics}
    limits = deployments()["kubernetes"].settings(tmp_path).limits
    assert wanted.keys() == {"ganforge_queue_pixels", "ganforge_queue_seconds"}
    assert 4 * wanted["ganforge_queue_pixels"] <= limits.max_queue_pixels
    assert 4 * wanted["ganforge_queue_seconds"] <= limits.max_queue_s
