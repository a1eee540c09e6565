"""The commands."""

from __future__ import annotations

import sys
from typing import Any

import click
from click.shell_completion import get_completion_class

from gpu_commons_cli import approvals, config, costs, deploy, output, quota
from gpu_commons_cli.client import Failed, Portal
from gpu_commons_cli.shared import as_json, portal


class _Commands(click.Group):
    """Prints refusals as sentences instead of tracebacks."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; leave with the refusal's exit code."""
        try:
            return super().invoke(ctx)
        except Failed as error:
            click.echo(str(error), err=True)
            ctx.exit(error.code)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gpu-commons-cli", message="%(version)s")
def commons() -> None:
    """Quota, approvals, releases and costs of GPU Commons."""


@commons.command()
@click.option("--url", required=True, help="Address of the portal.")
@click.option("--token", envvar="COMMONS_TOKEN", prompt="API token", hide_input=True, help="Else it is asked for.")
def login(url: str, token: str) -> None:
    """Sign in with an API token, and keep it for the next commands."""
    if not url.startswith(("https://", "http://localhost", "http://127.0.0.1")):
        raise Failed("Use https: a token must not travel in the clear.", 2)
    kept = config.Config(url.rstrip("/"), token.strip())
    me = Portal(kept).get("me")
    file = config.save(kept)
    click.echo(f"Signed in as {me['display_name']}. Kept in {file}.")


@commons.command()
def logout() -> None:
    """Forget the token kept here (revoke it on your account page)."""
    click.echo("Forgotten." if config.forget() else "Nothing was kept here.")


@commons.command()
@as_json
def whoami(as_json: bool) -> None:
    """Say who you are to the portal."""
    output.one(portal().get("me"), as_json=as_json)


@commons.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes your shell complete commands: `eval "$(commons completion bash)"`."""
    kind = get_completion_class(shell)
    if kind is None:
        raise Failed(f"There is no completion for {shell}.", 2)
    click.echo(kind(commons, {}, "commons", "_COMMONS_COMPLETE").source())


commons.add_command(quota.quota)
commons.add_command(approvals.approve)
commons.add_command(approvals.reject)
commons.add_command(costs.cost)
commons.add_command(deploy.deploy)
commons.add_command(quota.kubeconfig)


def main() -> None:
    """Run the command line."""
    sys.exit(commons(prog_name="commons", standalone_mode=True))
