"""The command line ``recognition``. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.output import INTERRUPTED, USER_MISTAKE, Json, leave, print_json
from flows.commands.serving import house_app
from recognition.errors import RecognitionError

if TYPE_CHECKING:
    from recognition.experiment import Experiment

app = typer.Typer(
    name="recognition",
    help="Turn labelled images into a scored, registered model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Fresh = Annotated[bool, typer.Option("--fresh", help="Download, audit and prepare the images again.")]
data_app = typer.Typer(help="Compare versions of data.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(house_app)
MODEL_HELP = "models:/name@alias, models:/name/1, a name (its champion) or a run's id."
VERSION_HELP = "A run's id, a dataset digest, a prepared folder or samples.parquet, or a source."
WITHOUT_SERVERS = ("list", "up")


@app.callback()
def find_house(context: typer.Context) -> None:
    if context.invoked_subcommand not in WITHOUT_SERVERS:
        from flows.house.addresses import join_house

        # Prefect reads its address when it is imported, by the command
        join_house()


@app.command()
def train(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[EXPERIMENT.yaml] [section.key=value ...]",
            help="An experiment file (none: the default experiment) and settings on top of it.",
        ),
    ] = None,
    fresh: Fresh = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check the settings, and estimate parameters, memory and time.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Download, audit, prepare, augment, train, evaluate and register, as one tracked run."""
    from recognition.configuration import load_experiment
    from recognition.sources import check_source

    file, overrides = _file_and_settings(words or [])
    experiment = load_experiment(file, overrides)
    check_source(experiment.data)
    _begin_loading()
    if dry_run:
        _examine_only(experiment, as_json)
        return
    from flows.servers.temporary import prefect_server
    from flows.training import train as train_flow
    from recognition.tracking import check_store
    from tasks.examining import examine

    # before a server is started and a run is on record
    check_store()
    examine(experiment, timed=False)
    with prefect_server():
        result = train_flow(**{name: getattr(experiment, name) for name in type(experiment).model_fields}, fresh=fresh)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        from flows.commands.summaries import print_training

        print_training(result)


@app.command()
def audit(
    source: Annotated[
        str, typer.Argument(help="A data set's name, a folder, an archive, a manifest, or an address of one.")
    ],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[data.key=value ...]", help="Settings of the data.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="Also look for wrong labels, with this model (on images it was not trained on).")
    ] = "",
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Find what is wrong with images before a network learns it; exit code 1 if they could not be used."""
    from flows.commands.summaries import print_audit
    from flows.commands.terminal import progress_bar
    from recognition import preparation
    from recognition.configuration import load_experiment

    _check_data_settings(words or [])
    data = load_experiment(None, [*(words or []), f"data.source={json.dumps(source)}"]).data
    with progress_bar() as on_progress:
        located = preparation.locate(data, on_progress, fresh=fresh)
        audited = preparation.examine(data, located, on_progress, fresh=fresh)
        if model:
            from recognition.label_check import with_wrong_labels

            audited = with_wrong_labels(data, located, audited, model, on_progress)
    if as_json:
        print_json(audited.model_dump(mode="json") | {"report": str(audited.path / "report.html")})
    else:
        print_audit(audited)
    if audited.failed:
        raise typer.Exit(1)


@data_app.command()
def diff(
    before: Annotated[str, typer.Argument(help=VERSION_HELP)],
    after: Annotated[str, typer.Argument(help="The same, of the later version.")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[data.key=value ...]", help="Settings of the data, for sources.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say which images were added, removed, relabelled, renamed or moved between splits."""
    from recognition.data_lookup import samples_named
    from recognition.differences import as_text
    from recognition.differences import diff as difference_of

    _check_data_settings(words or [])
    difference = difference_of(samples_named(before, words or []), samples_named(after, words or []))
    if as_json:
        print_json(difference.model_dump(mode="json"))
    else:
        typer.echo(as_text(difference))


@data_app.command()
def announce(
    source: Annotated[
        str, typer.Argument(help="A data set's name, a folder, an archive, a manifest, or an address of one.")
    ],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[data.key=value ...]", help="Settings of the data.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell Prefect that a source holds other images than when it was last seen; automations may train on them."""
    from recognition import preparation
    from recognition.configuration import load_experiment

    _check_data_settings(words or [])
    data = load_experiment(None, [*(words or []), f"data.source={json.dumps(source)}"]).data
    from flows.commands.terminal import progress_bar
    from flows.servers.connecting import connected
    from tasks.announcing import announce_dataset

    with connected() as client, progress_bar() as on_progress:
        client.hello()  # events are sent on the side, where nobody hears that there is no server
        located = preparation.locate(data, on_progress)
        announced = announce_dataset(data, located, "announce")
    if as_json:
        print_json({"announced": announced, "digest": located.fingerprint, "images": located.images})
    else:
        said = "announced" if announced else "nothing new, nothing announced"
        typer.echo(f"{source}: {located.images:,} images, {said}")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[evaluation.key=value ...]", help="Settings of the evaluation.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score a model again on the test images of the run that made it."""
    from recognition.configuration import load_experiment

    _, overrides = _file_and_settings(words or [])
    if any(not word.startswith("evaluation.") for word in overrides):
        raise typer.BadParameter("only settings of the section evaluation can be given here")
    evaluation = load_experiment(None, overrides).evaluation
    _begin_loading()
    from flows.evaluation import evaluate as evaluate_flow
    from flows.servers.temporary import prefect_server
    from recognition.registry import run_of

    run_of(model)  # before a server is started and a run is on record
    with prefect_server():
        result = evaluate_flow(model=model, evaluation=evaluation)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        from flows.commands.summaries import print_evaluation

        print_evaluation(result)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    top_k: Annotated[int | None, typer.Option(min=0, help="Classifiers: so many classes an image; 0: all.")] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Detectors: boxes from this confidence on.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write restored images, or images with boxes or masks, into this folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask a model about image files: their classes, objects, masks, or restored images."""
    from recognition.prediction import predict_files, write_pictures

    asked = {name: value for name, value in (("top_k", top_k), ("threshold", threshold)) if value is not None}
    answers = predict_files(model, images, asked)
    if output is not None:
        answers = write_pictures(answers, output)
    if as_json:
        print_json({"model": model, "predictions": answers})
    else:
        from flows.commands.summaries import told_answer

        for answer in answers:
            typer.echo(f"{answer['image']}: {told_answer(answer)}")


@app.command()
def generate(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    count: Annotated[int, typer.Option(min=1, max=100_000, help="How many images.")] = 64,
    label: Annotated[str, typer.Option(help="Of this class; empty: of each class in turn.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of the noise: the same seed gives the same images.")] = 0,
    output: Annotated[Path, typer.Option(help="The folder that images are written into.")] = Path("generated"),
    as_json: Json = False,
) -> None:
    """Make new images with a registered generator, and write them with an overview into a folder."""
    from recognition.generation import generate_files

    result = generate_files(model, count, label, seed, output)
    if as_json:
        print_json(result)
    else:
        typer.echo(f"{len(result['images'])} images in {output}, all of them in {result['overview']}")


@app.command()
def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN RUN ...]", help="Ids of runs, or registered models; none: see the options."),
    ] = None,
    model: Annotated[str, typer.Option(help="A registered model: its newest versions against its champion.")] = "",
    experiment: Annotated[str, typer.Option(help="An MLflow experiment: its newest runs. None: the usual one.")] = "",
    newest: Annotated[int, typer.Option(min=2, help="How many are looked at where no runs are named.")] = 5,
    as_json: Json = False,
) -> None:
    """Say what was set otherwise in runs, what each scored on the same test images, and which images flipped."""
    from flows.house.addresses import join_house

    join_house()
    from recognition.comparison import find

    found = find(runs or [], model, experiment, newest)
    if as_json:
        print_json(found.as_dict())
    else:
        from rich.console import Console
        from rich.markdown import Markdown

        from recognition.comparison_report import as_markdown

        Console(highlight=False).print(Markdown(as_markdown(found)))


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(metavar="datasets|networks|policies|experiments")],
    containing: Annotated[str, typer.Argument(help="Only names with this text in them.")] = "",
    as_json: Json = False,
) -> None:
    """Show what can be chosen."""
    from flows.commands.listing import LISTS
    from recognition.errors import ConfigurationError

    if what not in LISTS:
        raise ConfigurationError(f"{what!r} is none of {', '.join(LISTS)}.")
    found = {name: about for name, about in LISTS[what]().items() if containing in name}
    if not found:
        raise ConfigurationError(f"None of the {what} has {containing!r} in its name.")
    if as_json:
        print_json({what: found})
        return
    width = max((len(name) for name in found), default=0)
    for name, about in found.items():
        typer.echo(f"{name:<{width}}  {about}".rstrip())


def _examine_only(experiment: Experiment, as_json: bool) -> None:
    """What a run would be; neither a server is started nor a run recorded."""
    from tasks.examining import examine

    found = examine(experiment)
    if as_json:
        print_json(found.model_dump(mode="json") | {"needed_mb": found.needed_mb})
    else:
        from flows.commands.summaries import print_preflight

        print_preflight(found)


def _check_data_settings(words: list[str]) -> None:
    for word in words:
        if not word.startswith("data."):
            raise typer.BadParameter(f"{word!r}: only settings of the section data can be given here")
        if word.startswith("data.source="):
            raise typer.BadParameter(f"{word!r}: the source is the first argument")


def _file_and_settings(words: list[str]) -> tuple[Path | None, list[str]]:
    """The experiment file, if the first word is no setting, and the settings."""
    if words and "=" not in words[0]:
        return Path(words[0]), words[1:]
    return None, words


def _begin_loading() -> None:
    """Let the process that stages are forked from import torch while this one imports Prefect."""
    from recognition.settings import home
    from tasks.isolation import start_host

    typer.echo("starting ...", err=True)
    home()  # before Prefect tries for minutes to open a database in a folder that can't be made
    start_host()


def main() -> None:
    """Run the command line; a user's mistake is one message and exit code 2."""
    try:
        app()
    except RecognitionError as mistake:
        typer.echo(f"error: {mistake}", err=True)
        leave(USER_MISTAKE)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        leave(INTERRUPTED)


if __name__ == "__main__":
    main()
