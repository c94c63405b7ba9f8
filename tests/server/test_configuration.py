"""Settings of `python -m server` from flags, environment, a file and defaults, in this order, and how they are printed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from server.__main__ import main
from server.configuration import unknown_variables
from server.options import GROUPS, Settings

SECRETS = ("token", "key", "secret", "password")


def serve(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, list(arguments), env=env)


def settings(*arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """What --print-config prints, as tables."""
    printed = serve("--print-config", *arguments, env=env)
    assert printed.exit_code == 0, printed.output
    return tomllib.loads(printed.stdout)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ganforge.toml"
    path.write_text(
        '[models]\nbundles = "my bundles"\ndefault = ["upscale=small"]\n'
        "[listening]\nport = 5000\ngrace-s = 4\n[limits]\nmax_calls = 7\nidle-s = 2.5\n",
        encoding="utf-8",
    )
    return path


def test_a_flag_wins_over_the_environment_that_over_the_file_that_over_defaults(file: Path) -> None:
    env = {"GANFORGE_SERVE_PORT": "6000", "GANFORGE_SERVE_MAX_CALLS": "8"}
    found = settings("--config", str(file), "--max-calls", "9", env=env)
    assert found["limits"]["max_calls"] == 9
    assert found["listening"] == {"host": "127.0.0.1", "port": 6000, "grace_s": 4}
    assert (found["limits"]["idle_s"], found["limits"]["max_count"]) == (2.5, 256)


def test_each_line_says_where_its_value_comes_from(file: Path) -> None:
    env = {"GANFORGE_SERVE_PORT": "6000", "GANFORGE_SERVE_DEFAULT": "upscale=other"}
    lines = serve("--print-config", "--config", str(file), "--max-calls", "9", env=env).stdout.splitlines()
    assert "port = 6000  # GANFORGE_SERVE_PORT" in lines
    assert 'default = ["upscale=other"]  # GANFORGE_SERVE_DEFAULT' in lines
    assert "max_calls = 9  # --max-calls" in lines
    assert f"idle_s = 2.5  # {file}" in lines
    assert "max_count = 256  # default" in lines
    assert "# device is not set" in lines


def test_the_files_paths_start_at_its_folder(file: Path) -> None:
    assert settings("--config", str(file))["models"]["bundles"] == str(file.parent / "my bundles")


def test_what_is_printed_is_a_file_with_the_same_settings(file: Path, tmp_path: Path) -> None:
    flags = ["--config", str(file), "--host", 'with "quotes", \\ and é', "--min-precision", "bfloat16"]
    printed = serve("--print-config", *flags).stdout
    again = tmp_path / "elsewhere" / "again.toml"
    again.parent.mkdir()
    again.write_text(printed, encoding="utf-8")
    values = [parsed(["--config", str(path)], flags[2:] if path == file else []) for path in (file, again)]
    assert values[0] == values[1]
    assert values[0].models.defaults == {"upscale": "small"}


def parsed(config: list[str], flags: list[str]) -> Settings:
    with main.make_context("serve", config + flags) as context:
        return Settings.of(context.params)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[limits]\nmax-pixls = 3",
            "there is no setting 'limits.max-pixls'; did you mean limits.max_pixels?",
        ),
        ("port = 3", "there is no setting 'port'; expected it as listening.port"),
        ("[limits]\nport = 3", "there is no setting 'limits.port'; expected it as listening.port"),
        ("[limits]\nzzz.y = 3", "there is no setting 'limits.zzz'; expected one of models.bundles, "),
        ('[limits]\nmax-pixels = "3"', 'limits.max-pixels is "3", expected a whole number'),
        ("[limits]\nmax_pixels = 3.5", "limits.max_pixels is 3.5, expected a whole number"),
        ("[limits]\nidle_s = true", "limits.idle_s is true, expected a number"),
        ("[limits]\nmax_pixels = 0", "limits.max_pixels is 0: 0 is not in the range x>=1"),
        ("[models]\nbundles = [1]", "models.bundles is [1], expected text in quotes"),
        ('[models]\nbackend = "cuda"', "models.backend is \"cuda\": 'cuda' is not one of 'auto'"),
        ('[models]\ndefault = "upscale=a"', 'models.default is "upscale=a", expected a list of text'),
        ('[models]\ndefault = ["paint=a"]', "models.default is [\"paint=a\"]: got 'paint=a', expected TASK="),
        ("[limits]\nmax_pixels = 3\nmax-pixels = 3", "limits.max-pixels is there twice"),
        ("[limits\n", "this is not TOML: "),
    ],
)
def test_a_file_with_a_mistake_is_refused_by_name(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "ganforge.toml"
    path.write_text(text, encoding="utf-8")
    done = serve("--config", str(path), "--bundles", "x")
    assert done.exit_code == 2
    assert f"{path}: {expected}" in done.stderr.replace("\n", " ")


def test_a_file_that_is_not_text_or_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ganforge.toml"
    path.write_bytes(b"\xff\xfe")
    assert f"{path}: this is not TOML" in serve("--config", str(path), "--bundles", "x").stderr
    missing = serve("--config", str(tmp_path / "no.toml"), "--bundles", "x")
    assert "no.toml cannot be read: No such file" in missing.stderr


def test_a_wrong_value_in_the_environment_names_the_variable() -> None:
    done = serve("--bundles", "x", env={"GANFORGE_SERVE_PORT": "tcp://10.0.0.1:50051"})
    assert done.exit_code == 2
    assert "(from the environment variable GANFORGE_SERVE_PORT)" in done.stderr.replace("\n", " ")


def test_an_unknown_variable_is_reported_but_not_those_of_kubernetes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANFORGE_SERVE_MAX_PIXLES", "3")
    monkeypatch.setenv("GANFORGE_SERVE_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("GANFORGE_SERVE_PORT_50051_TCP_ADDR", "10.0.0.1")
    assert unknown_variables(GROUPS) == [
        "GANFORGE_SERVE_MAX_PIXLES is no setting; did you mean GANFORGE_SERVE_MAX_PIXELS?"
    ]


def test_secrets_are_paths_of_files_so_that_none_is_printed() -> None:
    for group in GROUPS:
        for option in group.options:
            if any(word in option.opts[0] for word in SECRETS):
                assert isinstance(option.type, click.Path), f"{option.opts[0]} would print a secret"


def test_every_flag_of_a_group_has_help_and_every_group_a_heading() -> None:
    help = serve("--help").output
    for group in GROUPS:
        assert f"\n{group.title}:\n" in help
        assert all(option.help for option in group.options)
