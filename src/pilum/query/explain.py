"""Query plans as small trees of nodes: what a scan or a search will do, step by step.

A node names its operation, its options and its inputs.  `explain` draws the tree; after a measured run
(`pilum.query.analyze`) the nodes that read carry what they cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pilum.query.metrics import FragmentMetrics, ScanMetrics, StepMetrics
from pilum.query.ordering import ColumnOrdering
from pilum.query.scan import Scan, plan_groups, readahead
from pilum.query.search import Search
from pilum.query.waterfall import dependent_rounds

__all__ = ["PlanNode", "explain", "plan_tree"]

_MOST_FRAGMENTS = 20


@dataclass(frozen=True, slots=True)
class PlanNode:
    """One step of a plan: its name, its options and where its rows come from.

    Attributes:
        step: name under which a run measures it; empty for steps that read nothing.
    """

    name: str
    details: tuple[tuple[str, Any], ...] = ()
    inputs: tuple[PlanNode, ...] = ()
    step: str = ""

    def lines(
        self, metrics: ScanMetrics | None = None, *, verbose: bool = False, depth: int = 0
    ) -> list[str]:
        """The tree below this node, one line a node; measured nodes say what they cost, and with ``verbose`` there
        is one more line for each fragment."""
        details = ", ".join(f"{key}={value}" for key, value in self.details if value is not None)
        indent = "  " * depth
        own = [indent + self.name + (f": {details}" if details else "")]
        measured = None if metrics is None else metrics.steps.get(self.step)
        if measured is not None:
            rounds = f", rounds={dependent_rounds(measured.waits)}" if metrics and metrics.network else ""
            own[0] += f"{',' if details else ':'} metrics=[{_cost(measured)}{rounds}]"
            if verbose:
                own += _fragments(measured, indent)
        for node in self.inputs:
            own += node.lines(metrics, verbose=verbose, depth=depth + 1)
        return own


def _cost(measured: StepMetrics | FragmentMetrics) -> str:
    network = f"retries={measured.retries}, " if measured.retries else ""
    cached = f"cache_bytes={measured.cached}, " if measured.cached else ""
    return (
        f"output_rows={measured.rows}, requests={measured.requests}, bytes_read={measured.bytes}, "
        f"{network}{cached}elapsed={measured.seconds * 1e3:.3f} ms"
    )


def _fragments(measured: StepMetrics, indent: str) -> list[str]:
    lines = []
    for fragment_id, one in sorted(measured.fragments.items())[:_MOST_FRAGMENTS]:
        name = f"fragment {fragment_id}" + (f" and {one.fragments - 1} more" if one.fragments > 1 else "")
        lines.append(f"{indent}  | {name}: {_cost(one)}")
    left = len(measured.fragments) - len(lines)
    if left > 0:
        lines.append(f"{indent}  | … and {left} more groups of fragments")
    return lines


def explain(plan: Scan | Search, *, verbose: bool = False) -> str:
    """The plan as an indented tree, the root first."""
    return "\n".join(plan_tree(plan, verbose=verbose).lines()) + "\n"


def plan_tree(plan: Scan | Search, *, verbose: bool = False) -> PlanNode:
    """The plan as a tree of nodes."""
    return _of_search(plan, verbose) if isinstance(plan, Search) else _of_scan(plan, verbose)


def _names(schema: Any) -> str:
    return "[" + ", ".join(field.name for field in schema.fields) + "]"


def _output(plan: Scan | Search) -> tuple[str, str]:
    return "columns", "[" + ", ".join(plan.schema.names) + "]"


def _filter_nodes(scan: Scan, source: tuple[tuple[str, Any], ...]) -> PlanNode:
    """Reading and testing, stage after stage."""
    node: PlanNode | None = None
    for number, stage in enumerate(scan.stages):
        if node is None:
            details = (*source, ("projection", _names(stage.schema)))
            node = PlanNode("LanceRead", details, (), f"stage {number + 1}")
        elif stage.schema.fields:
            node = PlanNode(
                "LateRead", (("projection", _names(stage.schema)),), (node,), f"stage {number + 1}"
            )
        condition = " AND ".join(f"({one})" if len(stage.filters) > 1 else str(one) for one in stage.filters)
        node = PlanNode("Filter", (("filter", condition),), (node,))
    if node is None:
        node = PlanNode("LanceRead", (*source, ("projection", _names(scan.late))), (), "late")
        if scan.filter is not None and scan.filter.constant is not None:
            node = PlanNode("Filter", (("filter", scan.filter),), (node,))
    return node


def _of_scan(scan: Scan, verbose: bool) -> PlanNode:
    groups = plan_groups(scan) if verbose and scan.union.fields else ()
    source = (
        ("uri", scan.snapshot.store.uri),
        ("version", scan.snapshot.manifest.version),
        ("num_fragments", len(scan.fragments)),
        ("groups", len(groups) if verbose else None),
        ("units", sum(len(group.units) for group in groups) if verbose else None),
        ("fragment_readahead", readahead(scan.snapshot, scan.request)),
    )
    node = _filter_nodes(scan, source)
    if scan.stages and scan.late.fields:
        node = PlanNode("LateRead", (("projection", _names(scan.late)),), (node,), "late")
    if scan.orderings:
        node = PlanNode("SortExec", (("by", _order(scan.orderings)), ("TopK", _top(scan))), (node,))
    return PlanNode("Project", (_output(scan),), (_limited(scan, node),))


def _top(scan: Scan) -> int | None:
    request = scan.request
    return None if request.limit is None else request.limit + (request.offset or 0)


def _order(orderings: tuple[ColumnOrdering, ...]) -> str:
    return ", ".join(
        f"{one.column_name} {'asc' if one.ascending else 'desc'} nulls {'first' if one.nulls_first else 'last'}"
        for one in orderings
    )


def _limited(plan: Scan | Search, node: PlanNode) -> PlanNode:
    request = plan.request
    if request.limit is None and not request.offset:
        return node
    return PlanNode("Limit", (("skip", request.offset or 0), ("fetch", request.limit)), (node,))


def _of_search(plan: Search, verbose: bool) -> PlanNode:
    source: tuple[tuple[str, Any], ...] = (
        ("uri", plan.snapshot.store.uri),
        ("version", plan.snapshot.manifest.version),
        ("num_fragments", len(plan.snapshot.select(plan.request.fragment_ids))),
    )
    inputs: tuple[PlanNode, ...] = ()
    if plan.before is not None:
        inputs = (_filter_nodes(plan.before, source),)
        source = ()
    node = PlanNode("LanceRead", (*source, ("projection", _names(plan.vector))), inputs, "vectors")
    nearest = plan.nearest
    node = PlanNode(
        "KNNVectorDistance",
        (
            ("column", nearest.column),
            ("metric", plan.metric),
            ("lower", nearest.lower),
            ("upper", nearest.upper),
            ("queries", len(plan.queries) if plan.batch else None),
            ("dimension", plan.queries[0].dimension if verbose else None),
        ),
        (node,),
    )
    node = PlanNode("SortExec", (("TopK", nearest.k), ("by", "_distance asc, _rowid asc")), (node,))
    if plan.after is not None:
        node = PlanNode("Filter", (("filter", plan.after),), (node,), "filter")
    if not plan.request.order_by:
        node = _limited(plan, node)
    node = PlanNode("Take", (("projection", _names(plan.projection.read)),), (node,), "take")
    if plan.request.order_by:
        node = _limited(plan, PlanNode("SortExec", (("by", _order(plan.request.order_by)),), (node,)))
    return PlanNode("Project", (_output(plan),), (node,))
