"""The curves and matrices of a run, each written to a PNG file.

Labels, predictions and probabilities are as ``recognition.scores`` describes them. Every function makes the folder of
``path``, replaces the file and returns nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import FuncNorm, LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator
from sklearn import metrics

from recognition.drawing import INK, MUTED, PALETTE, RIGHT, WRONG, drawing, short, write_message
from recognition.scores import Labels, Probabilities, checked_predictions, per_class_table

Curve = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]

OUTCOME = LinearSegmentedColormap.from_list(
    "outcome", ["#8f2417", WRONG, "#f1b3a8", "#ffffff", "#a9c8e8", RIGHT, "#123f73"]
)
MANY_CLASSES = 20
WORST_CLASSES = 5
TOP_CONFUSIONS = 20


def confusion_matrix(matrix: npt.NDArray[np.int64], class_names: Sequence[str], path: Path) -> None:
    """Draw a (K, K) matrix of counts, true classes down and predicted ones across.

    Colours are shares of the true class: blue where right, red where wrong, on a square-root scale so that rare
    mistakes show. Up to 20 classes carry counts; above, the most frequent confusions are listed beside the matrix.
    Raises ValueError when the matrix does not fit the names or holds negative counts.
    """
    num_classes = len(class_names)
    if matrix.shape != (num_classes, num_classes):
        raise ValueError(f"a matrix of shape {matrix.shape} does not fit {num_classes} class names")
    if matrix.min() < 0:
        raise ValueError("a matrix of counts holds no negative numbers")
    total = int(matrix.sum())
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    signed = np.where(np.eye(num_classes, dtype=bool), share, -share)
    accuracy = np.trace(matrix) / max(total, 1)
    many = num_classes > MANY_CLASSES
    title = f"Confusion matrix{': ' if num_classes > 8 else chr(10)}{accuracy:.2%} of {total:,} images right"
    side = min(12.0, 3.0 + 0.11 * num_classes) if many else 2.6 + 0.36 * num_classes
    font = 10.0 if not many else min(8.0, max(3.5, 0.72 * 72 * side * 0.8 / num_classes))
    with drawing(path, side * 1.4 + 1 if many else side + 1.4, side) as figure:
        if many:
            axes, ranking = figure.subplots(1, 2, width_ratios=(2.6, 1))
            _rank_confusions(ranking, matrix, class_names)
        else:
            axes = figure.subplots()
        norm = FuncNorm((_signed_root, _signed_square), vmin=-1, vmax=1)
        mesh = axes.imshow(signed, cmap=OUTCOME, norm=norm, interpolation="nearest")
        if not many:
            _write_counts(axes, matrix, share)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        step = math.ceil(num_classes / 150)
        shown = range(0, num_classes, step)
        labels = [short(name) for name in class_names[::step]]
        axes.set_xticks(list(shown), labels, rotation=_rotation(labels, many), fontsize=font, rotation_mode="anchor")
        for tick in axes.get_xticklabels():
            tick.set_horizontalalignment("center" if tick.get_rotation() == 0 else "right")
            tick.set_verticalalignment("top" if tick.get_rotation() == 0 else "center")
        axes.set_yticks(list(shown), labels, fontsize=font)
        axes.tick_params(length=0)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        ticks = [-1.0, -0.5, -0.1, 0.0, 0.1, 0.5, 1.0]
        bar = figure.colorbar(mesh, ax=axes, ticks=ticks, shrink=0.8, aspect=28, pad=0.02)
        bar.ax.set_yticklabels([f"{abs(tick):.0%}" for tick in ticks], fontsize=8)
        bar.set_label(
            "wrong  |  right" if num_classes <= 4 else "share of the true class:  wrong  |  right", fontsize=9
        )
        bar.outline.set_visible(False)


def precision_recall_curves(
    labels: Labels, probabilities: Probabilities, class_names: Sequence[str], path: Path
) -> None:
    """Draw precision over recall, each class against the rest, with their average precision.

    The macro average is the mean precision at equal recall over the classes among the labels; the micro average counts
    every (image, class) pair as one decision. Above 20 classes only the averages and the 5 worst classes are drawn.
    Raises ValueError for arrays that do not fit ``recognition.scores``.
    """
    labels, probabilities = checked_predictions(labels, probabilities, class_names)
    scores = per_class_table(labels, probabilities, class_names)["average_precision"].to_numpy()
    truth = np.eye(len(class_names), dtype=bool)[labels]

    def curve(decisions: npt.NDArray[np.bool_], confidences: npt.NDArray[np.float64]) -> Curve:
        precision, recall, _ = metrics.precision_recall_curve(decisions, confidences)
        return recall[::-1], precision[::-1]

    curves = {
        int(label): curve(truth[:, label], probabilities[:, label]) for label in np.flatnonzero(~np.isnan(scores))
    }
    grid = np.linspace(0, 1, 501)
    averaged = np.mean([_at_recall(grid, *points) for points in curves.values()], axis=0)
    micro = curve(truth.ravel(), probabilities.ravel())
    micro_score = metrics.average_precision_score(truth.ravel(), probabilities.ravel())
    with drawing(path, 7.6, 5.0) as figure:
        axes = figure.subplots()
        averages = [
            (f"macro average   {np.nanmean(scores):.4f}", (grid, averaged)),
            (f"micro average   {micro_score:.4f}", micro),
        ]
        _draw_curves(axes, curves, scores, class_names, averages, left=False, drawstyle="steps-pre")
        axes.set_title("Precision and recall of each class against the rest")
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")
        _explain_curves(axes, "average precision", len(curves))


def roc_curves(labels: Labels, probabilities: Probabilities, class_names: Sequence[str], path: Path) -> None:
    """Draw true over false positive rates, each class against the rest, with the areas under the curves.

    Two classes give one curve, that of the second. The macro average is the mean true positive rate at equal false
    positive rate, the micro average counts every (image, class) pair as one decision. Above 20 classes only the
    averages and the 5 worst classes are drawn; where all labels are of one class, the figure says that there is no
    curve. Raises ValueError for arrays that do not fit ``recognition.scores``.
    """
    labels, probabilities = checked_predictions(labels, probabilities, class_names)
    scores = per_class_table(labels, probabilities, class_names)["roc_auc"].to_numpy()
    if np.isnan(scores).all():
        write_message(path, "No ROC curve", f"All images are of one class: {class_names[labels[0]]}.")
        return
    truth = np.eye(len(class_names), dtype=bool)[labels]

    def curve(decisions: npt.NDArray[np.bool_], confidences: npt.NDArray[np.float64]) -> Curve:
        false_positives, true_positives, _ = metrics.roc_curve(decisions, confidences)
        return false_positives, true_positives

    curves = {
        int(label): curve(truth[:, label], probabilities[:, label]) for label in np.flatnonzero(~np.isnan(scores))
    }
    averages: list[tuple[str, Curve]] = []
    title = "ROC of each class against the rest"
    if len(class_names) == 2:
        title = f"ROC of {short(class_names[1])} against {short(class_names[0])}"
        curves = {1: curves[1]}
    else:
        grid = np.unique(np.concatenate([np.linspace(0, 1, 501), np.geomspace(1e-5, 1, 201)]))
        averaged = np.mean([np.interp(grid, *points) for points in curves.values()], axis=0)
        averaged[0] = 0.0
        micro_score = metrics.roc_auc_score(truth.ravel(), probabilities.ravel())
        averages = [
            (f"macro average   {np.nanmean(scores):.4f}", (grid, averaged)),
            (f"micro average   {micro_score:.4f}", curve(truth.ravel(), probabilities.ravel())),
        ]
    with drawing(path, 7.6, 5.0) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":", zorder=1)
        _draw_curves(axes, curves, scores, class_names, averages, left=True)
        axes.set_title(title)
        axes.set_xlabel("false positive rate")
        axes.set_ylabel("true positive rate")
        _explain_curves(axes, "area under the curve", len(curves))


def learning_curves(history: dict[str, list[float]], path: Path, best_epoch: int | None = None) -> None:
    """Draw what was measured after each epoch: losses on the left, scores on the right.

    ``history`` maps ``train/<name>`` and ``val/<name>`` to one value an epoch, drawn from 1 on as MLflow's steps; names
    that end in ``loss`` are losses, other series within [0, 1] are scores, the rest is left out.
    ``best_epoch``, an index of the history, is marked and its values stand in the legend; without one it is that of the
    lowest ``val/loss`` (else ``train/loss``). Series may be empty, of different lengths and hold NaN. Raises ValueError
    for a best epoch that is not in the history.
    """
    series = {key: np.asarray(values, dtype=np.float64) for key, values in history.items()}
    series = {key: values for key, values in series.items() if np.isfinite(values).any()}
    losses = {key: values for key, values in series.items() if key.endswith("loss")}
    scores = {key: values for key, values in series.items() if key not in losses and _is_score(key, values)}
    epochs = max((len(values) for values in [*losses.values(), *scores.values()]), default=0)
    if epochs == 0:
        write_message(path, "No learning curves", "No losses or scores were measured.")
        return
    if best_epoch is None:
        watched = losses.get("val/loss", losses.get("train/loss"))
        best_epoch = None if watched is None else int(np.nanargmin(watched))
    elif not 0 <= best_epoch < epochs:
        raise ValueError(f"best_epoch is {best_epoch}; the history holds epochs 0 to {epochs - 1}")
    panels = [(title, group) for title, group in (("Loss", losses), ("Scores", scores)) if group]
    with drawing(path, 5.2 * len(panels), 3.9) as figure:
        for axes, (title, group) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
            names = sorted({key.partition("/")[2] for key in group})
            for key, values in group.items():
                split, _, name = key.partition("/")
                colour = (RIGHT if split == "val" else PALETTE[1]) if len(names) == 1 else PALETTE[names.index(name)]
                axes.plot(
                    np.arange(1, len(values) + 1),
                    values,
                    color=colour,
                    linestyle="-" if split == "val" else "--",
                    linewidth=1.8,
                    marker="o",
                    markersize=4 if len(values) <= 30 else 0,
                    label=_with_value(key, values, best_epoch),
                )
                if best_epoch is not None and best_epoch < len(values):
                    axes.plot(
                        best_epoch + 1, values[best_epoch], "o", color="white", markeredgecolor=colour, markersize=8
                    )
            if best_epoch is not None:
                axes.axvline(
                    best_epoch + 1,
                    color=MUTED,
                    linewidth=1,
                    linestyle=":",
                    zorder=1,
                    label=f"best epoch: {best_epoch + 1}",
                )
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.set_xlim(*((0.5, 1.5) if epochs == 1 else (1 - 0.03 * epochs, epochs + 0.03 * epochs)))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if epochs == 1:
                axes.set_xticks([1])
            axes.legend(loc="best", frameon=True, edgecolor="none")


def _write_counts(axes: Axes, matrix: npt.NDArray[np.int64], share: npt.NDArray[np.float64]) -> None:
    few = len(matrix) <= 5
    size = 10.0 if len(matrix) <= 12 and matrix.max() < 10_000 else 8.0
    for (row, column), value in np.ndenumerate(matrix):
        text = f"{value:,}\n{share[row, column]:.1%}" if few else f"{value:,}"
        colour = "white" if share[row, column] > 0.3 else INK if value else "#c3cad2"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)


def _rank_confusions(axes: Axes, matrix: npt.NDArray[np.int64], class_names: Sequence[str]) -> None:
    mistakes = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:TOP_CONFUSIONS]
    pairs = [divmod(int(index), len(matrix)) for index in order if mistakes.flat[index] > 0]
    axes.set_title("Most frequent confusions", fontsize=11)
    axes.spines[:].set_visible(False)
    axes.grid(False)
    axes.set_xticks([])
    axes.tick_params(length=0)
    counts = [int(mistakes[pair]) for pair in pairs]
    bars = axes.barh(np.arange(len(pairs)), counts, color=WRONG, height=0.32)
    axes.bar_label(bars, fontsize=8, padding=3)
    axes.set_yticks([])
    for position, (true, said) in enumerate(pairs):
        text = f"{short(class_names[true], 18)} → {short(class_names[said], 18)}"
        axes.text(0, position - 0.24, text, fontsize=8, va="bottom")
    axes.set_ylim(max(len(pairs), TOP_CONFUSIONS) - 0.4, -0.9)
    axes.set_xlim(0, 1.15 * max(counts, default=1))


def _draw_curves(
    axes: Axes,
    curves: dict[int, Curve],
    scores: npt.NDArray[np.float64],
    class_names: Sequence[str],
    averages: Sequence[tuple[str, Curve]],
    left: bool,
    drawstyle: Literal["default", "steps-pre"] = "default",
) -> None:
    """Draw averages thick and classes thin, and once more the upper left or right corner where all crowd into it."""
    drawn = list(curves)
    if len(drawn) > MANY_CLASSES:
        drawn = sorted(drawn, key=lambda label: scores[label])[:WORST_CLASSES]
    views = [axes]
    if np.nanmean(scores) > 0.96:
        inset = axes.inset_axes((0.44 if left else 0.1, 0.12, 0.5, 0.5))
        inset.set_xlim(*((-0.002, 0.1) if left else (0.9, 1.002)))
        inset.set_ylim(0.9, 1.002)
        inset.set_title("corner, enlarged", fontsize=8, fontweight="normal", color=MUTED)
        inset.tick_params(labelsize=7, length=2)
        inset.locator_params(nbins=3)
        inset.spines[:].set_visible(True)
        views.append(inset)
    for view in views:
        for (text, points), colour, line in zip(averages, (INK, MUTED), ("-", "--"), strict=False):
            view.plot(*points, color=colour, linewidth=2.6, linestyle=line, drawstyle=drawstyle, label=text, zorder=4)
        for position, label in enumerate(drawn):
            width = 1.2 if averages else 2.4
            text = f"{short(class_names[label], 22)}   {scores[label]:.4f}"
            view.plot(
                *curves[label],
                color=PALETTE[position],
                linewidth=width,
                drawstyle=drawstyle,
                label=text,
                zorder=3,
            )
    axes.set_xlim(-0.015, 1.015)
    axes.set_ylim(-0.015, 1.015)
    axes.set_aspect("equal")


def _explain_curves(axes: Axes, score: str, num_curves: int) -> None:
    worst = f"\n(the {WORST_CLASSES} worst of {num_curves} classes)" if num_curves > MANY_CLASSES else ""
    legend = axes.legend(
        loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0, title=score + worst, alignment="left"
    )
    legend.get_title().set_fontsize(9)
    legend.get_title().set_color(MUTED)


def _at_recall(
    grid: npt.NDArray[np.float64], recall: npt.NDArray[np.float64], precision: npt.NDArray[np.float64]
) -> Any:
    """Precision at each recall of the grid: that of the next higher recall measured, as average precision has it."""
    return precision[np.searchsorted(recall, grid, side="left").clip(max=len(recall) - 1)]


def _is_score(key: str, values: npt.NDArray[np.float64]) -> bool:
    measured = values[np.isfinite(values)]
    split = key.partition("/")[0]
    return split in ("train", "val") and bool(((measured >= 0) & (measured <= 1)).all())


def _with_value(key: str, values: npt.NDArray[np.float64], epoch: int | None) -> str:
    known = epoch is not None and epoch < len(values) and np.isfinite(values[epoch])
    return f"{key}   {values[epoch]:.4f}" if known else key


def _rotation(labels: Sequence[str], many: bool) -> float:
    if many:
        return 90
    return 0 if max(len(label) for label in labels) <= (3 if len(labels) > 5 else 9) else 45


def _signed_root(values: Any) -> Any:
    return np.sign(values) * np.sqrt(np.abs(values))


def _signed_square(values: Any) -> Any:
    return np.sign(values) * np.square(values)
