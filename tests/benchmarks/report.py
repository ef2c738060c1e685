"""What is told of a measured run: tables for the terminal and for the manual, and which targets are met."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

from benchmarks import backfills, databases, drifts, fleets
from benchmarks.tools import FLOOR, OURS
from benchmarks.workloads import EIGHT, ONE, PSQL, REHEARSE, UP

Document = dict[str, Any]


def values(document: Document, workload: str, tool: str, what: str = "wall") -> list[float]:
    """Give a tool's samples; none where it was not measured."""
    result = document["workloads"].get(workload, {}).get("tools", {}).get(tool, {})
    return [sample[what] for sample in result.get("samples", [])]


def ratios(document: Document, workload: str, tool: str, floor: str) -> list[float]:
    """Divide a tool's time by the floor's, round by round: what slows a round down slows both."""
    pairs = zip(values(document, workload, tool), values(document, workload, floor), strict=False)
    return [one / other for one, other in pairs]


def text(document: Document) -> Iterator[str]:
    """Write the whole as lines for a terminal."""
    yield from _machine(document)
    for name, workload in document["workloads"].items():
        yield ""
        yield f"{workload['title']}  [{name}]   floor: {workload['floor']}"
        yield f"  {'':20}{'median':>9}{'min':>9}{'max':>9}{'ratio':>8}{'CPU':>9}{'memory':>10}{'round trips':>13}"
        for tool, result in workload["tools"].items():
            yield f"  {tool:20}{_row(document, name, tool, result)}{_remark(document, tool)}"
    yield from databases.text(document.get("testing", {}))
    yield from backfills.text(document.get("backfill", {}))
    yield from drifts.text(document.get("drift", {}))
    yield ""
    for target in targets(document):
        yield "  ".join((f"{target['met']:8}", target["target"], "·", target["measured"]))


def _row(document: Document, workload: str, tool: str, result: Document) -> str:
    walls = values(document, workload, tool)
    if not walls:
        return f"   left out: {result['left_out']}"
    floor = next(iter(document["workloads"][workload]["tools"]))
    cpu, memory = (median(values(document, workload, tool, what)) for what in ("cpu", "memory"))
    trips = "" if result["round_trips"] is None else f"{result['round_trips']:,}"
    shown = "".join(f"{seconds(one):>9}" for one in (median(walls), min(walls), max(walls)))
    ratio = median(ratios(document, workload, tool, floor))
    return f"{shown}{ratio:>8.2f}{seconds(cpu):>9}{memory / 1e6:>7.0f} MB{trips:>13}"


def _remark(document: Document, tool: str) -> str:
    remark = document["tools"].get(tool, {}).get("remark")
    return f"   ({remark})" if remark else ""


def _machine(document: Document) -> Iterator[str]:
    versions = ", ".join(f"{name} {tool['version']}" for name, tool in document["tools"].items() if tool["version"])
    load = " to ".join(document["load"])
    yield f"{document['date']}, {document['machine']}, load {load}; PostgreSQL {document['postgresql']}"
    yield f"{versions}. `{document['command']}`"


def seconds(value: float) -> str:
    """Write a time in ms below a second."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def markdown(document: Document) -> Iterator[str]:
    """Write the manual's part: a line a tool, a column a workload, each a median and its ratio to the floor."""
    tools = list(document["tools"])
    yield from ("| | " + " | ".join(tools) + " |", "| --- |" + " ---: |" * len(tools))
    for name, workload in document["workloads"].items():
        if OURS in workload["tools"]:
            cells = (_cell(document, name, next(iter(workload["tools"])) if tool == FLOOR else tool) for tool in tools)
            yield f"| {workload['title']} | {' | '.join(cells)} |"
    yield from databases.markdown(document.get("testing", {}))
    yield from backfills.markdown(document.get("backfill", {}))
    yield from drifts.markdown(document.get("drift", {}))
    yield ""
    yield "Median time, in brackets the ratio to the floor, then round trips."
    yield from _machine(document)
    yield ""
    yield from ("| target | measured | |", "| --- | --- | --- |")
    for target in targets(document):
        yield f"| {target['target']} | {target['measured']} | {target['met']} |"


def _cell(document: Document, workload: str, tool: str) -> str:
    walls = values(document, workload, tool)
    results = document["workloads"][workload]["tools"]
    if tool not in results:
        return ""
    if not walls:
        return "left out"
    ratio = median(ratios(document, workload, tool, next(iter(results))))
    trips = results[tool]["round_trips"]
    return f"{seconds(median(walls))} ({ratio:.2f}×){'' if trips is None else f' {trips:,}'}"


def targets(document: Document) -> Iterator[dict[str, str]]:
    """Hold the figures against the issue's targets; what was not measured in full is not told."""
    if not document["has_targets"]:
        return
    yield from _ratio(document, "apply-1000", 1.15)
    yield from _fastest(document, "apply-1000")
    yield from _ratio(document, "far", 1.15)
    yield from _trips(document, "far", 108)
    if dbmate := ratios(document, "far", "dbmate", OURS):
        yield _target("far: at least 3 times faster than dbmate", f"{median(dbmate):.2f} times", median(dbmate) >= 3)
    for count in (100, 1000):
        for name in (f"nothing-{count}", f"status-{count}"):
            yield from _ratio(document, name, 1.2)
            yield from _trips(document, name, 8)
    for word in ("up", "status"):
        few, many = (values(document, "grown", f"{word}, {count} applied") for count in ("10", "1,000"))
        if few and many:
            more = median(many) - median(few)
            yield _target(f"grown: {word}: at most 30 ms more with 1,000 than with 10", seconds(more), more <= 0.03)
    for name in ("version", "help", "check", "new"):
        yield from _ratio(document, f"offline-{name}", 1.5)
    yield from _growth(document)
    for name in ("large-1", "large-100"):
        yield from _ratio(document, name, 1.2, floor=PSQL)
        if memory := values(document, name, OURS, "memory"):
            peak = median(memory) / 1e6
            yield _target(f"{name}: client memory at most 4 times the file, 80 MB", f"{peak:.0f} MB", peak <= 80)
    yield from _ratio(document, "eight", 1.5, tool=EIGHT, floor=ONE)
    yield from _rehearsed(document)
    yield from _of_fleets(document)
    yield from (_target(*target) for target in databases.targets(document.get("testing", {})))
    yield from (_target(*target) for target in backfills.targets(document.get("backfill", {})))
    yield from (_target(*target) for target in drifts.targets(document.get("drift", {})))


def _of_fleets(document: Document) -> Iterator[dict[str, str]]:
    more = [
        one - other
        for one, other in zip(
            values(document, "fleet-nothing", fleets.FLEET),
            values(document, "fleet-nothing", fleets.STATUS),
            strict=True,
        )
    ]
    if more:
        yield _target(
            "fleet-nothing: at most 0.4 s more than status of one", seconds(median(more)), median(more) <= 0.4
        )
    if walls := values(document, "fleet-file", fleets.FLEET):
        yield _target("fleet-file: at most 3 s", seconds(median(walls)), median(walls) <= 3)
        peaks = [values(document, "fleet-file", one, "memory") for one in (fleets.FLEET, fleets.ONE)]
        memory = (median(peaks[0]) - median(peaks[1])) / 1e6
        yield _target("fleet-file: under 100 MB more than one up", f"{memory:.0f} MB", memory < 100)
    yield from _ratio(document, "fleet-file", 1.3, tool=fleets.FLEET, floor=fleets.BARE)
    if found := ratios(document, "fleet-file", fleets.FLEET, fleets.LEAST):
        measured = f"{median(found):.2f} times (rounds: {min(found):.2f} to {max(found):.2f})"
        yield {"target": f"fleet-file beside the {fleets.LEAST}", "measured": measured, "met": ""}
    yield from _ratio(document, "fleet-databases", 1.5, tool=fleets.FLEET, floor=fleets.BARE)
    yield from _ratio(document, "fleet-far", 0.2, tool=fleets.FLEET, floor=fleets.FAR)


def _rehearsed(document: Document) -> Iterator[dict[str, str]]:
    for name in ("one", "each", "grown", "inserts"):
        yield from _ratio(document, f"rehearse-{name}", 5, tool=REHEARSE, floor=UP)


def _target(target: str, measured: str, is_met: bool) -> dict[str, str]:
    return {"target": target, "measured": measured, "met": "met" if is_met else "NOT MET"}


def _ratio(
    document: Document, workload: str, most: float, *, tool: str = OURS, floor: str = FLOOR
) -> Iterator[dict[str, str]]:
    if found := ratios(document, workload, tool, floor):
        measured = f"{median(found):.2f} times (rounds: {min(found):.2f} to {max(found):.2f})"
        yield _target(f"{workload}: at most {most} times {floor}", measured, median(found) <= most)


def _trips(document: Document, workload: str, most: int) -> Iterator[dict[str, str]]:
    result = document["workloads"].get(workload, {}).get("tools", {}).get(OURS, {})
    if (trips := result.get("round_trips")) is not None:
        yield _target(f"{workload}: at most {most} round trips", f"{trips}", trips <= most)


def _fastest(document: Document, workload: str) -> Iterator[dict[str, str]]:
    """A peer is faster beyond the noise when it was faster in every round."""
    peers = [tool for tool in document["tools"] if tool not in (FLOOR, OURS) and values(document, workload, tool)]
    if peers:
        against = {tool: ratios(document, workload, tool, OURS) for tool in peers}
        tool = min(against, key=lambda name: median(against[name]))
        measured = f"{tool}: {median(against[tool]):.2f} of our time (rounds: {min(against[tool]):.2f} to "
        faster = any(max(found) < 1 for found in against.values())
        yield _target(
            f"{workload}: no peer is faster in every round", f"{measured}{max(against[tool]):.2f})", not faster
        )


def _growth(document: Document) -> Iterator[dict[str, str]]:
    for tool in (OURS, FLOOR):
        one, few, many = (values(document, f"apply-{count}", tool) for count in (1, 100, 5000))
        if one and few and many:
            each = (median(few) - median(one)) / 99, (median(many) - median(one)) / 4999
            measured = (
                f"{each[1] * 1000:.2f} ms a file at 5,000, {each[0] * 1000:.2f} at 100: {each[1] / each[0]:.2f} times"
            )
            met = each[1] <= 1.3 * each[0]
            told = "growth: a file at 5,000 at most 1.3 times one at 100" + (
                "" if tool == OURS else ", the floor's own"
            )
            yield _target(told, measured, met)
    if planning := document["planning"]:
        met = max(planning) < 0.2
        yield _target("planning 5,000 files against 5,000 entries: under 200 ms of CPU", seconds(max(planning)), met)
