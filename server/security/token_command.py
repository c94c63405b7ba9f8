"""The command `ganforge token NAME`: makes a token for a server's file of tokens (--tokens)."""

from __future__ import annotations

import click

from server.security.tokens import new_token, table


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name")
def main(name: str) -> None:
    """Make a token called NAME: print it to stdout, and its table for the server's file to stderr.

    The token is shown this once. NAME appears in logs and metrics, the token nowhere. For example:

    ganforge token alice > alice.token 2>> tokens.toml
    """
    token = new_token()
    lines = table(name, token)
    click.echo(token)
    click.echo(f"\n{lines}", err=True, nl=False)
