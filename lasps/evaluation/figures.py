"""Pictures for notebooks and MLflow: plain arrays and frames in, matplotlib Figures out.

One class has one colour everywhere (Korean convention: BUY red, SELL blue, HOLD grey). Sector names are Korean where a
font has them, English elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from lasps.config.sectors import SECTORS
from lasps.config.settings import CLASS_COLORS, CLASS_NAMES
from lasps.evaluation.chart_sheet import chart_sheet as chart_sheet

if TYPE_CHECKING:
    import pandas as pd

    from lasps.evaluation.class_accuracy import Share

KOREAN_FONTS = (
    "NanumGothic",
    "Nanum Gothic",
    "Noto Sans CJK KR",
    "Noto Sans KR",
    "Noto Sans CJK JP",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
    "AppleGothic",
    "NanumBarunGothic",
    "UnDotum",
    "Baekmuk Gulim",
)
MODEL_COLORS = ("#7a4fb5", "#e0a100", "#2f8f5b", "#00808f", "#d16ba5", "#8c564b")  # none is a class's
TRAIN_COLOR, VAL_COLOR, MARK_COLOR = "#8a8f98", "#2f8f5b", "#d1363a"
GRID_COLOR = "#e8eaed"


@cache
def korean_font() -> str | None:
    """The name of an installed font with Hangul, None where there is none."""
    found = _known_korean_font()
    if found is None:
        _learn_newly_installed_fonts()
        found = _known_korean_font()
    if found is not None:  # NanumGothic's bold calls itself semibold, and every picture would say so on stderr
        logging.getLogger(font_manager.__name__).setLevel(logging.ERROR)
    return found


def _known_korean_font() -> str | None:
    known = {font.name for font in font_manager.fontManager.ttflist}
    return next((name for name in KOREAN_FONTS if name in known), None)


def _learn_newly_installed_fonts() -> None:
    """Fonts that came after matplotlib wrote its list of fonts, which it never looks over again."""
    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        try:
            font_manager.fontManager.addfont(path)
        except (OSError, RuntimeError, ValueError):  # a broken font file is no reason to go without pictures
            continue


def sector_name(sector: int, names: Sequence[str] | None = None) -> str:
    """A sector as pictures show it: Korean where a font can, else English; foreign data's own names, or its number."""
    if names is not None:
        name = names[sector] if sector < len(names) else f"sector {sector}"
        return name if korean_font() or name.isascii() else sector_name(sector)
    if sector >= len(SECTORS):
        return f"sector {sector}"
    return SECTORS[sector].korean if korean_font() else SECTORS[sector].english


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **keywords: Any) -> tuple[Figure, NDArray]:
    """A figure and its axes (rows, columns), with a light grid and no box."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **keywords)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color=GRID_COLOR, linewidth=0.8)
        ax.set_axisbelow(True)
        ax.tick_params(labelsize=8)
    return figure, axes


def set_title(figure: Figure, text: str) -> None:
    """The figure's title: what it shows, in a sentence. Called last, because it gives every text its font."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=12, fontweight="bold")
    if font := korean_font():
        for part in figure.findobj(Text):
            part.set_fontfamily(["DejaVu Sans", font])  # in this order: Korean fonts lack the minus of 10^-3


# ------------------------------------------------------------------------------------------------ training


def head_curves(
    curves: Mapping[int, pd.DataFrame],
    best_epoch: int | None = None,
    sizes: Mapping[int, int] | None = None,
    title: str = "Phase 2: the heads of the sectors",
    kept_start: Collection[int] = (),
) -> Figure:
    """Learning curves, one small picture per sector.

    Args:
        curves: sector -> frame with columns step, train (focal loss) and val (corrected log loss), NaN where unknown.
        best_epoch: the stopping epoch, marked.
        sizes: sector -> training samples, for the titles.
        kept_start: sectors whose new head was refused on val, so that they keep the head they started from.
    """
    columns = 5
    rows = max(1, -(-len(curves) // columns))
    figure, axes = new_figure(13, 0.6 + 1.5 * rows)
    ax = axes[0, 0]  # one for all: twenty axes with a second scale each take four seconds to draw
    ax.set_axis_off()
    ax.set(xlim=(-0.02, columns - 0.06), ylim=(-rows + 1.25, 1.3))
    for place, (sector, frame) in enumerate(sorted(curves.items())):
        left, bottom = place % columns, -(place // columns)
        refused = sector in kept_start
        n = f"  n {sizes[sector]:,}" if sizes and sector in sizes else ""
        ax.text(
            left,
            bottom + 1.13,
            f"{sector_name(sector)}{n}{'  (refused)' if refused else ''}",
            fontsize=8.5,
            color=MARK_COLOR if refused else "black",
            clip_on=True,
        )  # what is clipped need not be laid out
        _head_panel(ax, frame, left, bottom + 0.5, best_epoch)
    set_title(
        figure, f"{title} (grey: training loss; green: log loss on val, each on its own scale; dotted: stopping epoch)"
    )
    return figure


def _head_panel(ax: Axes, frame: pd.DataFrame, left: float, bottom: float, best_epoch: int | None) -> None:
    """Train and val loss in a panel of 0.92 x 0.45, with their values at the start and where it stopped (or ends)."""
    step = frame["step"].to_numpy()
    last = max(int(step.max()), 1)
    ax.plot([left, left + 0.92], [bottom - 0.04] * 2, color=GRID_COLOR, linewidth=0.8)
    for x, text in ((left, "epoch 0"), (left + 0.92, str(last))):
        ax.text(
            x,
            bottom - 0.06,
            text,
            fontsize=7,
            color=TRAIN_COLOR,
            va="top",
            ha="left" if x == left else "right",
            clip_on=True,
        )
    if best_epoch is not None:
        ax.plot(
            [left + 0.92 * best_epoch / last] * 2,
            [bottom - 0.04, bottom + 0.5],
            color=MARK_COLOR,
            linewidth=0.9,
            linestyle=":",
        )
    for name, color, x, side in (("train", TRAIN_COLOR, left, "left"), ("val", VAL_COLOR, left + 0.92, "right")):
        y = frame[name].to_numpy(dtype=float)
        known = np.flatnonzero(np.isfinite(y))
        if not len(known):
            continue
        span = np.ptp(y[known]) or 1.0
        ax.plot(
            left + 0.92 * step / last,
            bottom + 0.45 * (y - y[known].min()) / span,
            color=color,
            marker=".",
            markersize=3,
            linewidth=1.2,
        )
        stop = known[-1] if best_epoch is None else known[np.abs(step[known] - best_epoch).argmin()]
        ax.text(x, bottom + 0.52, f"{y[known[0]]:.3f} → {y[stop]:.3f}", fontsize=7, color=color, ha=side, clip_on=True)


def phase_curves(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Focal loss of whole phases on train and val: name -> frame with columns step, train and val."""
    figure, axes = new_figure(4.6 * max(len(curves), 1), 3.2, 1, max(len(curves), 1))
    for ax, (name, frame) in zip(axes[0], curves.items(), strict=False):
        ax.plot(frame["step"], frame["train"], color=TRAIN_COLOR, marker="o", markersize=3, label="train")
        ax.plot(frame["step"], frame["val"], color=VAL_COLOR, marker="o", markersize=3, label="val")
        if frame["val"].notna().any():
            best = frame.loc[frame["val"].idxmin()]
            ax.plot(best["step"], best["val"], "o", color=MARK_COLOR, markersize=6, label="lowest on val")
        ax.set(xlabel="epoch", ylabel="focal loss")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_title(name, loc="left", fontsize=10)
        ax.legend(fontsize=8, frameon=False)
    set_title(figure, "Learning curves")
    return figure


# ------------------------------------------------------------------------------------------------ comparison


def class_accuracy_bars(shares: Mapping[str, Mapping[str, Share]], title: str = "Class-wise accuracy") -> Figure:
    """Class-wise accuracy of several models side by side, with 95 % intervals over days: model -> class -> Share."""
    figure, axes = new_figure(9.5, 3.8)
    draw_class_accuracy(axes[0, 0], shares)
    set_title(figure, f"{title}, with 95 % intervals over days")
    return figure


def draw_class_accuracy(ax: Axes, shares: Mapping[str, Mapping[str, Share]], fontsize: float = 7) -> None:
    """`class_accuracy_bars` on axes of one's own."""
    width = 0.8 / max(len(shares), 1)
    places = []
    for c, name in enumerate(CLASS_NAMES):
        for i, by_class in enumerate(shares.values()):
            share, x = by_class[name], c + (i - (len(shares) - 1) / 2) * width
            places.append(x)
            ax.bar(x, 100 * share.value, 0.9 * width, color=CLASS_COLORS[name], alpha=0.4 + 0.6 * (i + 1) / len(shares))
            if share.low is not None and share.high is not None:
                ax.plot([x, x], [100 * share.low, 100 * share.high], color="black", linewidth=1.2)
            above = share.value if share.high is None else share.high
            ax.annotate(
                f"{100 * share.value:.1f} %",
                (x, 100 * above),
                xytext=(0, 3),
                ha="center",
                fontsize=fontsize,
                textcoords="offset points",
            )
        n = next(iter(shares.values()))[name].n
        ax.text(
            c,
            0.99,
            f"{name} (n {n:,})",
            transform=ax.get_xaxis_transform(),
            ha="center",
            va="top",
            fontsize=fontsize + 2,
            fontweight="bold",
            color=CLASS_COLORS[name],
        )
    ax.set_xticks(places, list(shares) * len(CLASS_NAMES), fontsize=fontsize, rotation=30, ha="right")
    tops = [s.value if s.high is None else s.high for m in shares.values() for s in m.values()]
    ax.set_ylim(0, 122 * np.nanmax(tops))
    ax.set_ylabel("predicted as what they were, %")


def confusion_matrices(counts: Mapping[str, NDArray[np.int64]]) -> Figure:
    """One matrix per model: counts and, as colour, the share of the true class (rows: truth; columns: the call)."""
    figure, axes = new_figure(3.7 * len(counts), 3.8, 1, len(counts))
    for ax, (name, matrix) in zip(axes[0], counts.items(), strict=True):
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        ax.imshow(shares, cmap="Greys", vmin=0, vmax=1)
        for (i, j), share in np.ndenumerate(shares):
            ax.text(
                j,
                i,
                f"{100 * share:.0f} %\n{matrix[i, j]:,}",
                ha="center",
                va="center",
                fontsize=9,
                color="white" if share > 0.55 else "black",
            )
        _class_ticks(ax)
        ax.set_title(f"{name}: accuracy {100 * np.trace(matrix) / max(matrix.sum(), 1):.2f} %", loc="left", fontsize=10)
    set_title(figure, "Confusion: rows are what happened, columns what was called")
    return figure


def _class_ticks(ax: Axes) -> None:
    ax.grid(False)
    ax.set_xticks(range(len(CLASS_NAMES)), CLASS_NAMES)
    ax.set_yticks(range(len(CLASS_NAMES)), CLASS_NAMES)
    for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
        for label, name in zip(labels, CLASS_NAMES, strict=True):
            label.set_color(CLASS_COLORS[name])
            label.set_fontweight("bold")


def sector_differences(
    frame: pd.DataFrame, a: str, b: str, unit: str = "log loss, nats", below_is_better: bool = True
) -> Figure:
    """b minus a per sector, sorted, with n and 95 % intervals.

    Args:
        frame: columns sector, n, difference, low, high (NaN: no interval) and significant (after correction).
    """
    figure, axes = new_figure(8.5, 1.2 + 0.28 * len(frame))
    draw_sector_differences(axes[0, 0], frame, a, b, unit, below_is_better)
    set_title(figure, f"{b} against {a}, sector by sector, with 95 % intervals over days")
    return figure


def draw_sector_differences(
    ax: Axes,
    frame: pd.DataFrame,
    a: str,
    b: str,
    unit: str = "log loss, nats",
    below_is_better: bool = True,
    names: Sequence[str] | None = None,
) -> None:
    """`sector_differences` on axes of one's own; names: of the sectors, instead of `sector_name`'s choice."""
    rows = frame.sort_values("difference", ascending=below_is_better).reset_index(drop=True)
    sign = -1 if below_is_better else 1
    for y, row in rows.iterrows():
        color = CLASS_COLORS["HOLD"]
        if row["significant"]:
            color = CLASS_COLORS["BUY"] if sign * row["difference"] > 0 else CLASS_COLORS["SELL"]
        if np.isfinite([row["low"], row["high"]]).all():
            ax.plot([row["low"], row["high"]], [y, y], color=color, linewidth=2)
        ax.plot(row["difference"], y, "o", color=color, markersize=5)
    ax.axvline(0, color="black", linewidth=0.9)
    ax.set_yticks(
        range(len(rows)),
        [f"{sector_name(int(s), names)}  (n {int(n):,})" for s, n in zip(rows["sector"], rows["n"], strict=True)],
    )
    ax.invert_yaxis()
    side = "left" if below_is_better else "right"
    ax.set_xlabel(
        f"{b} minus {a}, {unit}; {side} of 0 is better\nred: better, blue: worse, grey: neither (Holm's correction)",
        fontsize=8,
    )


def reliability(curves: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]) -> Figure:
    """Stated probability against observed share, per class.

    Args:
        curves: model -> class -> points with probability, share and n (`comparison.calibration_curve`).
    """
    figure, axes = new_figure(11, 3.8, 1, len(CLASS_NAMES))
    for ax, name in zip(axes[0], CLASS_NAMES, strict=True):
        for (model, by_class), color in zip(curves.items(), MODEL_COLORS, strict=False):
            x, y = ([point[key] for point in by_class[name]] for key in ("probability", "share"))
            ax.plot(x, y, color=color, marker="o", markersize=3.5, label=model)
        top = 1.05 * max(max(point["probability"], point["share"]) for m in curves.values() for point in m[name])
        ax.plot([0, top], [0, top], color="black", linewidth=0.8)
        ax.set(xlim=(0, top), ylim=(0, top), xlabel=f"stated P({name})", ylabel="observed share")
        ax.set_title(name, color=CLASS_COLORS[name], loc="left", fontsize=10, fontweight="bold")
    axes[0, 0].legend(fontsize=8, frameon=False)
    set_title(figure, "Calibration: equal-mass bins; on the diagonal, a stated 30 % happens 30 times in 100")
    return figure


def change_bars(changes: pd.DataFrame, a: str, b: str) -> Figure:
    """Which calls changed from a to b, and who was right: columns from, to, n, right, before."""
    figure, axes = new_figure(9, 1.3 + 0.42 * max(len(changes), 1))
    ax = axes[0, 0]
    if not len(changes):
        ax.set_axis_off()
        ax.text(
            0.5,
            0.5,
            f"no call changed: {a} and {b} call every sample alike",
            ha="center",
            va="center",
            transform=ax.transAxes,
        )
    for y, values in enumerate(changes.to_dict("records")):
        ax.barh(y, values["n"], color=CLASS_COLORS[values["to"]])
        ax.annotate(
            f"{100 * values['right']:.0f} % right now, {100 * values['before']:.0f} % before",
            (values["n"], y),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    ax.set_yticks(range(len(changes)), [f"{f} → {t}" for f, t in zip(changes["from"], changes["to"], strict=True)])
    ax.invert_yaxis()
    ax.set_xlabel("samples that changed their class")
    ax.margins(x=0.3)
    set_title(figure, f"From {a} to {b}: which calls changed, and were they better?")
    return figure


def comparison_picture(
    sectors: pd.DataFrame, shares: Mapping[str, Mapping[str, Share]], split: str, names: Sequence[str] | None = None
) -> Figure:
    """Two plots in one: class-wise accuracy of every model, and the last two of them sector by sector.

    Args:
        sectors: a Comparison's sectors.
        shares: model -> class -> its accuracy with an interval over days.
    """
    a, b = ([None, None, *shares])[-2:]
    rows = sectors[(sectors["split"] == split) & (sectors["a"] == a) & (sectors["b"] == b)]
    figure, axes = new_figure(14, 5.6, 1, 2, width_ratios=(1.5, 1))
    draw_class_accuracy(axes[0, 0], shares, fontsize=6.5)
    axes[0, 0].set_title(f"Class-wise accuracy on {split}, 95 % intervals over days", loc="left", fontsize=11)
    axes[0, 1].set_visible(len(rows) > 0)
    if len(rows):
        frame = rows.assign(significant=rows["better"].notna())
        draw_sector_differences(axes[0, 1], frame, str(a), str(b), names=names)
        axes[0, 1].set_title(f"{b} against {a}, sector by sector", loc="left", fontsize=11)
    return figure


# ------------------------------------------------------------------------------------------------ the market


def label_shares(frame: pd.DataFrame, by: str, title: str) -> Figure:
    """Class shares per group as stacked bars: columns `by`, n, SELL, HOLD and BUY (shares 0..1)."""
    figure, axes = new_figure(9, 1.2 + 0.28 * len(frame))
    ax, left = axes[0, 0], np.zeros(len(frame))
    for name in CLASS_NAMES:
        ax.barh(range(len(frame)), 100 * frame[name], left=left, color=CLASS_COLORS[name], label=name)
        for y, (share, start) in enumerate(zip(100 * frame[name], left, strict=True)):
            ax.text(start + share / 2, y, f"{share:.0f}", ha="center", va="center", fontsize=7, color="white")
        left += 100 * frame[name].to_numpy()
    ax.set_yticks(range(len(frame)), [f"{key}  (n {n:,})" for key, n in zip(frame[by], frame["n"], strict=True)])
    ax.margins(y=0.3 / max(len(frame), 1))
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.set_xlabel("share of samples, %")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper right", ncols=3, fontsize=8, frameon=False)
    set_title(figure, title)
    return figure


def coverage(
    frame: pd.DataFrame, borders: Mapping[str, object] | None = None, what: str = "stocks with a traded row, per day"
) -> Figure:
    """Stocks over time: columns date and stocks; borders: name -> date, marked."""
    figure, axes = new_figure(11, 3.2)
    ax = axes[0, 0]
    ax.plot(frame["date"], frame["stocks"], color="black", linewidth=0.9)
    ax.set_ylim(0, 1.15 * frame["stocks"].max())
    for name, day in (borders or {}).items():
        ax.axvline(day, color=MARK_COLOR, linewidth=0.9, linestyle=":")  # type: ignore[arg-type]
        ax.annotate(
            name,
            (day, 1.07 * frame["stocks"].max()),
            fontsize=8,
            color=MARK_COLOR,  # type: ignore[arg-type]
            xytext=(4, 0),
            textcoords="offset points",
        )
    ax.set_ylabel("stocks")
    set_title(figure, f"Coverage: {what}")
    return figure
