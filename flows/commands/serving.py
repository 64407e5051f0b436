"""Commands of the house: its servers, deployments, triggers, schedules, and what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.output import INTERRUPTED, Json, leave, print_json

if TYPE_CHECKING:
    from flows.commands.doctor import Finding
    from flows.deployments.scheduling import Planned

house_app = typer.Typer()
schedule_app = typer.Typer(help="Set, show, pause and remove schedules of deployments.", no_args_is_help=True)
house_app.add_typer(schedule_app, name="schedule")
DEPLOYMENT_HELP = "A deployment's name, such as train, digits_cnn or train/digits_cnn."
Slug = Annotated[str, typer.Option(help="Which of the deployment's schedules. None: see above.")]


@house_app.command()
def up(
    prefect_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of Prefect's pages and API.")] = 4200,
    mlflow_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of MLflow's pages and tracking server.")
    ] = 5000,
    limit: Annotated[int, typer.Option(min=1, help="So many runs the worker works on at once.")] = 2,
    check: Annotated[
        bool, typer.Option("--check", help="Start nothing: check the running house; exit code 1 if a part is missing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Start Prefect, MLflow, the deployments and a worker on this machine, until Ctrl-C.

    A server that PREFECT_API_URL, MLFLOW_TRACKING_URI or mlflow.yaml name by an address is used, and none started in
    its place. With --json the addresses are one line, printed as soon as all of them answer.
    """
    if check:
        from flows.house.addresses import join_house

        join_house()
        from flows.house.check import check_house

        _print_findings(check_house(), as_json)
        return
    from flows.commands.summaries import print_house
    from flows.house.running import up as keep_house

    keep_house(
        prefect_port,
        mlflow_port,
        limit,
        opened=lambda found: print_json(found.model_dump()) if as_json else print_house(found),
        say=lambda line: typer.echo(line, err=True),
    )


@house_app.command()
def deploy(
    experiments: Annotated[
        list[Path] | None, typer.Argument(metavar="[EXPERIMENT.yaml ...]", help="A deployment for each.")
    ] = None,
    pool: Annotated[
        str, typer.Option(metavar="local|docker|kubernetes", help="The work pool that runs wait in; made if missing.")
    ] = "local",
    automations: Annotated[
        bool | None,
        typer.Option(
            "--automations/--no-automations",
            help="Make what happens by itself: messages, trainings on new images, the end of runs that are gone; "
            "or take it off the server.",
        ),
    ] = None,
    notify: Annotated[
        str, typer.Option(metavar="TYPE/NAME", help="With --automations: the Prefect block that is told.")
    ] = "",
    webhook: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="With --automations: make a block for this address (https://, mailtos://). "
            "RECOGNITION_WEBHOOK_URL in the environment keeps it out of the shell's history.",
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Apply the deployments of prefect.yaml, and one for each experiment file."""
    from flows.deployments.deploying import deploy as apply

    if (notify or webhook) and not automations:
        raise typer.BadParameter("--notify and --webhook say whom --automations tell: give that too")
    names = apply(experiments or [], pool)
    made = _set_automations(automations, notify, webhook) if automations is not None else {}
    if as_json:
        print_json({"deployments": names, **made})
    else:
        for name in (*names, *made.get("automations", ())):
            typer.echo(name)


@house_app.command()
def trigger(
    deployment: Annotated[str, typer.Argument(help=DEPLOYMENT_HELP)],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[section.key=value ...]", help="Settings on top of the deployment's own."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the run's log to its end; exit code 1 if it did not complete.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Start a run of a deployment on the Prefect server, with settings on top of the deployment's own."""
    from flows.commands.summaries import print_triggered
    from flows.deployments.triggering import result_of
    from flows.deployments.triggering import trigger as start
    from flows.deployments.triggering import watch as follow

    run = start(deployment, words or [])
    print_triggered(run, as_json)
    state = "Scheduled"
    if watch:
        try:
            state = follow(run.flow_run_id, lambda line: typer.echo(line, err=as_json))
        except KeyboardInterrupt:
            typer.echo(f"no longer watched; the run goes on: {run.url}", err=True)
            leave(INTERRUPTED)
    if as_json:
        result = result_of(run.flow_run_id) if watch else {}
        print_json({"flow_run_id": run.flow_run_id, "name": run.name, "url": run.url, "state": state, **result})
    if watch and state != "Completed":
        raise typer.Exit(1)


@schedule_app.command("list")
def list_schedules(
    deployment: Annotated[str, typer.Argument(help=f"{DEPLOYMENT_HELP} None: all.")] = "",
    as_json: Json = False,
) -> None:
    """Show schedules and their next runs, in the time of this machine."""
    from flows.deployments.scheduling import planned

    _print_schedules(planned(deployment), as_json)


@schedule_app.command("set")
def set_schedule(
    deployment: Annotated[str, typer.Argument(help=DEPLOYMENT_HELP)],
    cron: Annotated[str, typer.Option(help="Five fields: minute, hour, day, month, weekday, such as '0 2 * * *'.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[section.key=value ...]", help="Settings of the scheduled runs."),
    ] = None,
    timezone: Annotated[str, typer.Option(help="Whose clock the line is read by, such as Europe/Berlin.")] = "UTC",
    slug: Annotated[str, typer.Option(help="Name of the schedule, where a deployment has several.")] = "default",
    as_json: Json = False,
) -> None:
    """Give a deployment a schedule, or change it; it is active then."""
    from flows.deployments.scheduling import set_schedule as put

    _print_schedules([put(deployment, cron, timezone, slug, words or [])], as_json)


@schedule_app.command("pause")
def pause_schedule(
    deployment: Annotated[str, typer.Argument(help=DEPLOYMENT_HELP)], slug: Slug = "", as_json: Json = False
) -> None:
    """Switch off a deployment's schedule; without --slug all of them."""
    from flows.deployments.scheduling import pause

    _print_schedules(pause(deployment, slug), as_json)


@schedule_app.command("resume")
def resume_schedule(
    deployment: Annotated[str, typer.Argument(help=DEPLOYMENT_HELP)], slug: Slug = "", as_json: Json = False
) -> None:
    """Switch on a deployment's schedule; without --slug the one named default, or the only one."""
    from flows.deployments.scheduling import resume

    _print_schedules(resume(deployment, slug), as_json)


@schedule_app.command("remove")
def remove_schedule(
    deployment: Annotated[str, typer.Argument(help=DEPLOYMENT_HELP)], slug: Slug = "", as_json: Json = False
) -> None:
    """Take a schedule from a deployment; without --slug the one named default, or the only one."""
    from flows.deployments.scheduling import remove

    left = remove(deployment, slug)
    if not as_json:
        typer.echo(f"removed; {'what is left:' if left else 'the deployment has no schedule now'}")
    if left or as_json:
        _print_schedules(left, as_json)


@house_app.command()
def doctor(as_json: Json = False) -> None:
    """Check environment, devices, servers and disk, and say what is missing."""
    from flows.commands.doctor import examine

    _print_findings(examine(), as_json)


def _set_automations(wanted: bool, notify: str, webhook: str) -> dict[str, list[str]]:
    """Make the automations, or remove them; their names."""
    from flows.deployments.automations import apply, notifies, remove

    if not wanted:
        return {"removed": remove()}
    names = apply(notify, webhook)
    if not notifies(names):
        typer.echo("nobody is told of failures and champions: name whom by --notify or --webhook", err=True)
    return {"automations": names}


def _print_findings(findings: list[Finding], as_json: bool) -> None:
    if as_json:
        print_json({"ok": all(f.ok for f in findings), "checks": [f.as_dict() for f in findings]})
    else:
        for finding in findings:
            typer.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name}: {finding.text}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _print_schedules(schedules: list[Planned], as_json: bool) -> None:
    if as_json:
        print_json({"schedules": [schedule.as_dict() for schedule in schedules]})
    else:
        from flows.commands.summaries import print_schedules

        print_schedules(schedules)
