#!/usr/bin/env python3
"""Recall against latency as a picture: plot.py JSON SVG, from what vectors.py has written."""

import json
import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "pgseal"  # the same picture from the same numbers

from matplotlib import pyplot, ticker  # noqa: E402

NAMES = {"hnsw": "pgvector HNSW, plaintext", "lists": "sealed_ivf, lists", "flat": "sealed_ivf, one list"}
FIELDS = {"median": "latency of a query at the client, median, ms", "cpu": "processor time of the backend, median, ms"}


def best(points, field):
    """In the order of the time, without those that take longer than another of the same recall or a higher one."""
    kept = []
    for point in sorted(points, key=lambda point: (point[field], -point["recall"])):
        if not kept or point["recall"] > kept[-1]["recall"]:
            kept.append(point)
    return kept


def draw(axes, points, field):
    for table, name in NAMES.items():
        own = [point for point in points if point["table"] == table]
        (line,) = axes.plot([1000 * p[field] for p in best(own, field)], [p["recall"] for p in best(own, field)], marker="o", label=name)
        axes.scatter([1000 * p[field] for p in own], [p["recall"] for p in own], s=12, alpha=0.4, color=line.get_color())
        for point in own:
            if point["settings"] == "defaults":
                axes.annotate("defaults", (1000 * point[field], point["recall"]), textcoords="offset points", xytext=(6, -12), fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_xlabel(FIELDS[field])
    axes.set_ylabel("recall@10")
    axes.grid(alpha=0.3, which="both")


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        results = json.load(file)
    figure, all_axes = pyplot.subplots(1, len(FIELDS), figsize=(12, 5), sharey=True)
    for axes, field in zip(all_axes, FIELDS):
        draw(axes, results["points"], field)
    all_axes[0].legend(loc="lower right", fontsize=9)
    figure.suptitle(f"{results['rows']} embeddings of {results['dimensions']} dimensions; {results['machine']}", fontsize=10)
    figure.tight_layout()
    figure.savefig(sys.argv[2], metadata={"Date": None})


if __name__ == "__main__":
    main()
