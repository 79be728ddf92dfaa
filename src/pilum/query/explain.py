"""Query plans as small trees of text: what a scan or a search will do, node by node.

A node names its operation, its options and its input.  `explain` draws the tree; `pilum.query.analyze`
draws the same tree after a run, with what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pilum.query.scan import Scan
from pilum.query.search import Search
from pilum.query.units import plan_units, unit_rows

__all__ = ["PlanNode", "explain", "plan_tree"]


@dataclass(frozen=True, slots=True)
class PlanNode:
    """One step of a plan: its name, its options and where its rows come from."""

    name: str
    details: tuple[tuple[str, Any], ...] = ()
    inputs: tuple[PlanNode, ...] = ()

    def lines(self, depth: int = 0) -> list[str]:
        """The tree below this node, one line a node."""
        details = ", ".join(f"{key}={value}" for key, value in self.details if value is not None)
        own = "  " * depth + self.name + (f": {details}" if details else "")
        return [own, *(line for node in self.inputs for line in node.lines(depth + 1))]


def explain(plan: Scan | Search, *, verbose: bool = False) -> str:
    """The plan as an indented tree, the root first."""
    return "\n".join(plan_tree(plan, verbose=verbose).lines()) + "\n"


def plan_tree(plan: Scan | Search, *, verbose: bool = False) -> PlanNode:
    """The plan as a tree of nodes."""
    return _of_search(plan, verbose) if isinstance(plan, Search) else _of_scan(plan, verbose)


def _names(schema: Any) -> str:
    return "[" + ", ".join(field.name for field in schema.fields) + "]"


def _output(plan: Scan | Search) -> tuple[str, str]:
    return "columns", "[" + ", ".join(plan.projection.schema.names) + "]"


def _of_scan(scan: Scan, verbose: bool) -> PlanNode:
    schema = scan.late if scan.filter is None else scan.early
    units = plan_units(scan.fragments, unit_rows(schema.to_arrow(), scan.batch_size)) if schema.fields else []
    node = PlanNode(
        "LanceRead",
        (
            ("uri", scan.snapshot.store.uri),
            ("version", scan.snapshot.manifest.version),
            ("projection", _names(schema)),
            ("num_fragments", len(scan.fragments)),
            ("units", len(units) if verbose else None),
            ("fragment_readahead", scan.window),
        ),
    )
    if scan.filter is not None:
        node = PlanNode("Filter", (("filter", scan.filter),), (node,))
        if scan.late.fields:
            node = PlanNode("LateRead", (("projection", _names(scan.late)),), (node,))
    request = scan.request
    if request.limit is not None or request.offset:
        node = PlanNode("Limit", (("skip", request.offset or 0), ("fetch", request.limit)), (node,))
    return PlanNode("Project", (_output(scan),), (node,))


def _of_search(plan: Search, verbose: bool) -> PlanNode:
    fragments = plan.snapshot.select(plan.request.fragment_ids)
    before = plan.filter is not None and plan.request.prefilter
    node = PlanNode(
        "LanceRead",
        (
            ("uri", plan.snapshot.store.uri),
            ("version", plan.snapshot.manifest.version),
            ("projection", _names(plan.vector)),
            ("num_fragments", len(fragments)),
        ),
    )
    if before:
        node = PlanNode("Filter", (("filter", plan.filter),), (node,))
    nearest = plan.nearest
    node = PlanNode(
        "KNNVectorDistance",
        (
            ("column", nearest.column),
            ("metric", nearest.metric),
            ("lower", nearest.lower),
            ("upper", nearest.upper),
            ("dimension", len(nearest.query) if verbose else None),
        ),
        (node,),
    )
    node = PlanNode("SortExec", (("TopK", nearest.k), ("by", "_distance asc, _rowid asc")), (node,))
    if plan.filter is not None and not before:
        node = PlanNode("Filter", (("filter", plan.filter),), (node,))
    request = plan.request
    if request.limit is not None or request.offset:
        node = PlanNode("Limit", (("skip", request.offset or 0), ("fetch", request.limit)), (node,))
    node = PlanNode("Take", (("projection", _names(plan.projection.read)),), (node,))
    return PlanNode("Project", (_output(plan),), (node,))
