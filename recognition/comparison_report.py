"""A comparison of runs as a page of Markdown, for Prefect, MLflow and a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from recognition.comparison import ComparedRun, Comparison, Pair
from recognition.families import is_better_when_lower

LONGEST_VALUE = 48
MOST_CLASSES = 10
MOST_FILES = 5


def as_markdown(comparison: Comparison) -> str:
    """Who is best by how much, then runs, scores, settings, classes and flipped images, a table each."""
    numbers = {run.run_id: str(number) for number, run in enumerate(comparison.runs, 1)}
    parts = [
        f"# Comparison of {len(comparison.runs)} runs",
        verdict(comparison),
        "All were scored on the same test images"
        + (f", {comparison.test_images:,} of them." if comparison.test_images else "."),
        _runs(comparison),
        "## Scores",
        _scores(comparison, numbers),
        "## What was set otherwise",
        _settings(comparison, numbers),
        *_classes(comparison, numbers),
        *_flips(comparison, numbers),
        *_left_out(comparison.left_out),
    ]
    return "\n\n".join(parts) + "\n"


def verdict(comparison: Comparison) -> str:
    """In a sentence of Markdown which run is best by the deciding score, and how far the next one is."""
    values = comparison.scores[comparison.metric]
    winners = comparison.winners
    best = values[winners[0].run_id]
    names = " and ".join(f"**{_text(run.model or run.name)}** (`{run.run_id[:8]}`)" for run in winners)
    others = [value for run_id, value in values.items() if run_id not in comparison.best[comparison.metric]]
    said = f"{names} {'is' if len(winners) == 1 else 'are equally'} best by {comparison.metric}: {best:.4f}"
    if not others:
        return f"{said}."
    lower = is_better_when_lower(comparison.metric)
    return f"{said}; the next one has {(min if lower else max)(others):.4f}."


def _runs(comparison: Comparison) -> str:
    rows = [
        (
            str(number),
            f"[{_text(run.name)}]({run.url})",
            f"`{run.run_id}`",
            _model(run),
        )
        for number, run in enumerate(comparison.runs, 1)
    ]
    return _table(("", "run", "id", "model"), rows)


def _model(run: ComparedRun) -> str:
    if not run.model:
        return "not registered"
    return f"{_text(run.model)} ({', '.join(run.aliases)})" if run.aliases else _text(run.model)


def _scores(comparison: Comparison, numbers: Mapping[str, str]) -> str:
    rows = []
    for name, values in comparison.scores.items():
        arrow = " (less is better)" if is_better_when_lower(name) else ""
        marked = {
            run_id: f"**{value:.4f}**" if run_id in comparison.best[name] else f"{value:.4f}"
            for run_id, value in values.items()
        }
        rows.append((f"{name}{arrow}", *(marked.get(run_id, "") for run_id in numbers)))
    for name, values in comparison.costs.items():
        rows.append((name, *(_number(values[run_id]) if run_id in values else "" for run_id in numbers)))
    return _table(("", *numbers.values()), rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def _settings(comparison: Comparison, numbers: Mapping[str, str]) -> str:
    if not comparison.settings:
        return "Nothing: settings, data, device and code are the same."
    rows = [
        (name, *(_text(_short(values[run_id])) for run_id in numbers)) for name, values in comparison.settings.items()
    ]
    return _table(("", *numbers.values()), rows)


def _short(value: str) -> str:
    return value if len(value) <= LONGEST_VALUE else f"{value[: LONGEST_VALUE - 1]}…"


def _classes(comparison: Comparison, numbers: Mapping[str, str]) -> list[str]:
    """The classes that changed most, over all pairs."""
    pairs = [pair for pair in comparison.pairs if pair.classes]
    largest: dict[str, float] = {}
    for pair in pairs:
        for name, change in pair.classes.items():
            largest[name] = max(largest.get(name, 0.0), abs(change.estimate))
    shown = [name for name in sorted(largest, key=lambda name: -largest[name]) if largest[name] > 0][:MOST_CLASSES]
    if not shown:
        return []
    rows = [
        (_text(name), *(f"{pair.classes[name].estimate:+.4f}" if name in pair.classes else "" for pair in pairs))
        for name in shown
    ]
    title = f"## Classes: {comparison.class_score} against run 1"
    about = f"The {len(shown)} that changed most, of {len(largest)}."
    return [title, about, _table(("class", *(numbers[pair.after] for pair in pairs)), rows)]


def _flips(comparison: Comparison, numbers: Mapping[str, str]) -> list[str]:
    pairs = [pair for pair in comparison.pairs if pair.flips is not None]
    if not pairs:
        return []
    rows = [row for pair in pairs for row in _flip_rows(pair, numbers)]
    header = ("from run 1 to", "right to wrong", "wrong to right", "among them")
    return ["## Test images that flipped", _table(header, rows)]


def _flip_rows(pair: Pair, numbers: Mapping[str, str]) -> Iterable[tuple[str, ...]]:
    flips = pair.flips
    assert flips is not None  # filtered by the caller
    worse = ", ".join(_text(name) for name in flips.files_right_to_wrong[:MOST_FILES])
    better = ", ".join(_text(name) for name in flips.files_wrong_to_right[:MOST_FILES])
    named = "; ".join(part for part in (f"worse: {worse}" * bool(worse), f"better: {better}" * bool(better)) if part)
    yield numbers[pair.after], str(flips.right_to_wrong), str(flips.wrong_to_right), named


def _left_out(left_out: Mapping[str, str]) -> list[str]:
    if not left_out:
        return []
    return ["## Not compared", "\n".join(f"- `{run_id}`: {_text(reason)}" for run_id, reason in left_out.items())]


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _text(text: str) -> str:
    """Text that is neither markup nor a table's border, on one line."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return "".join(f"\\{character}" if character in r"\`*_[]<>|#" else character for character in plain)
