"""Random histories of a table against a plain model in memory, by pilum alone and by both engines in turns."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

import pilum

try:
    import lance
except ImportError:
    lance = None

pytestmark = [pytest.mark.interop, pytest.mark.property]

STEPS = int(os.environ.get("PILUM_STEPS", "12"))
EXAMPLES = int(os.environ.get("PILUM_EXAMPLES", "12"))
RELAXED = settings(
    max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
)
_tables = itertools.count()


@dataclass(frozen=True)
class State:
    """What a version holds."""

    rows: tuple[tuple[int, str | None], ...] = ()
    config: tuple[tuple[str, str], ...] = ()


def arrow(rows: list[tuple[int, str | None]]) -> pa.Table:
    return pa.table(
        {
            "id": pa.array([one for one, _ in rows], pa.int64()),
            "s": pa.array([one for _, one in rows], pa.string()),
        }
    )


ROWS = st.lists(st.tuples(st.integers(0, 50), st.sampled_from([None, "", "a", "ä"])), min_size=1, max_size=12)
REMAINDERS = st.tuples(st.integers(1, 5), st.integers(0, 4))


class TableMachine(RuleBasedStateMachine):
    """Commands of a user, each done to the table and to the model."""

    tags = Bundle("tags")
    engines: tuple[Any, ...] = (pilum,)

    def __init__(self) -> None:
        super().__init__()
        self.folder: str | None = None
        self.versions: dict[int, State] = {}
        self.tagged: dict[str, int] = {}
        self.branches: dict[str, tuple[int, State]] = {}
        self.began: dict[str, int] = {}
        self.names = itertools.count()

    def where(self) -> str:
        return f"memory://model-{next(_tables)}"

    @initialize(rows=ROWS, stable=st.booleans(), size=st.sampled_from([3, 100]))
    def create(self, rows: list[tuple[int, str | None]], stable: bool, size: int) -> None:
        self.uri, self.size = self.where(), size
        pilum.write_dataset(arrow(rows), self.uri, enable_stable_row_ids=stable, max_rows_per_file=size)
        self.versions = {1: State(tuple(rows))}

    @property
    def newest(self) -> int:
        return max(self.versions)

    @property
    def state(self) -> State:
        return self.versions[self.newest]

    def commit(self, state: State) -> None:
        self.versions[self.newest + 1] = state

    def open(self, engine: int) -> Any:
        return self.engines[engine % len(self.engines)].dataset(self.uri)

    # -- commands --------------------------------------------------------------------------------------

    @rule(rows=ROWS, engine=st.integers(0, 1))
    def append(self, rows: list[tuple[int, str | None]], engine: int) -> None:
        self.open(engine).insert(arrow(rows), max_rows_per_file=self.size)
        self.commit(replace(self.state, rows=self.state.rows + tuple(rows)))

    @rule(rows=ROWS, engine=st.integers(0, 1))
    def overwrite(self, rows: list[tuple[int, str | None]], engine: int) -> None:
        self.open(engine).insert(arrow(rows), mode="overwrite", max_rows_per_file=self.size)
        self.commit(replace(self.state, rows=tuple(rows)))

    @rule(which=REMAINDERS, engine=st.integers(0, 1))
    def delete(self, which: tuple[int, int], engine: int) -> None:
        divisor, remainder = which
        kept = tuple([row for row in self.state.rows if row[0] % divisor != remainder])
        answer = self.open(engine).delete(f"id % {divisor} = {remainder}")
        assert answer == {"num_deleted_rows": len(self.state.rows) - len(kept)}
        self.commit(replace(self.state, rows=kept))

    @rule(which=REMAINDERS, text=st.sampled_from([None, "new"]), engine=st.integers(0, 1))
    def update(self, which: tuple[int, int], text: str | None, engine: int) -> None:
        divisor, remainder = which
        moved = [row for row in self.state.rows if row[0] % divisor == remainder]
        kept = [row for row in self.state.rows if row[0] % divisor != remainder]
        value = "NULL" if text is None else f"'{text}'"
        answer = self.open(engine).update({"s": value, "id": "id + 1"}, where=f"id % {divisor} = {remainder}")
        assert answer == {"num_rows_updated": len(moved)}
        changed = tuple([(one + 1, text) for one, _ in moved])
        self.commit(replace(self.state, rows=tuple(kept) + changed))

    @rule(key=st.sampled_from("ab"), value=st.sampled_from([None, "1", "2"]), engine=st.integers(0, 1))
    def configure(self, key: str, value: str | None, engine: int) -> None:
        config = dict(self.state.config)
        if value is None:
            config.pop(key, None)
        else:
            config[key] = value
        assert self.open(engine).update_config({key: value}) == config
        self.commit(replace(self.state, config=tuple(sorted(config.items()))))

    @rule(back=st.integers(0, 5), engine=st.integers(0, 1))
    def restore(self, back: int, engine: int) -> None:
        version = sorted(self.versions)[-1 - back % len(self.versions)]
        self.open(engine).checkout_version(version).restore()
        self.commit(self.versions[version])

    @rule(target=tags, back=st.integers(0, 5), engine=st.integers(0, 1))
    def tag(self, back: int, engine: int) -> Any:
        version = sorted(self.versions)[-1 - back % len(self.versions)]
        name = f"tag{next(self.names)}"
        self.open(engine).tags.create(name, version)
        self.tagged[name] = version
        return multiple(name)

    @rule(name=consumes(tags), engine=st.integers(0, 1))
    def untag(self, name: str, engine: int) -> None:
        self.open(engine).tags.delete(name)
        del self.tagged[name]

    @precondition(lambda self: len(self.branches) < 2)
    @rule(engine=st.integers(0, 1))
    def branch(self, engine: int) -> None:
        name = f"side/b{next(self.names)}"
        made = self.open(engine).create_branch(name)
        assert made.version == self.newest
        self.branches[name] = (self.newest, self.state)
        self.began[name] = self.newest

    @precondition(lambda self: self.branches)
    @rule(rows=ROWS, which=st.integers(0, 1), engine=st.integers(0, 1))
    def append_to_branch(self, rows: list[tuple[int, str | None]], which: int, engine: int) -> None:
        name = sorted(self.branches)[which % len(self.branches)]
        version, state = self.branches[name]
        self.open(engine).checkout_version((name, None)).insert(arrow(rows))
        self.branches[name] = (version + 1, replace(state, rows=state.rows + tuple(rows)))

    @precondition(lambda self: self.branches)
    @rule(which=st.integers(0, 1), engine=st.integers(0, 1))
    def drop_branch(self, which: int, engine: int) -> None:
        name = sorted(self.branches)[which % len(self.branches)]
        self.open(engine).branches.delete(name)
        del self.branches[name], self.began[name]

    @rule(retain=st.integers(1, 4), engine=st.integers(0, 1))
    def cleanup(self, retain: int, engine: int) -> None:
        self.open(engine).cleanup_old_versions(retain_versions=retain, error_if_tagged_old_versions=False)
        kept = {*sorted(self.versions)[-retain:], *self.tagged.values()}
        left = {one["version"] for one in self.open(0).version_refs()}
        # The reference also keeps the versions that branches were made from; pilum only keeps their files.
        began = {version for version in self.began.values() if version in self.versions}
        assert kept <= left <= kept | began
        self.versions = {version: state for version, state in self.versions.items() if version in left}

    # -- answers ---------------------------------------------------------------------------------------

    @invariant()
    def answers_are_those_of_the_model(self) -> None:
        if not self.versions:
            return
        for number in range(len(self.engines)):
            ds = self.open(number)
            assert ds.version == ds.latest_version == self.newest
            assert [one["version"] for one in ds.versions()] == sorted(self.versions)
            self.check(ds, self.state)
            assert {name: tag["version"] for name, tag in ds.tags.list().items()} == self.tagged
            assert ds.branches.list().keys() == self.branches.keys()
            for name, (version, state) in self.branches.items():
                branch = ds.checkout_version((name, None))
                assert branch.version == version
                self.check(branch, state)
        ds = self.open(0)
        ds.validate()
        for version in {min(self.versions), *self.tagged.values()}:
            self.check(ds.checkout_version(version), self.versions[version])

    def check(self, ds: Any, state: State) -> None:
        rows = list(state.rows)
        table = ds.to_table(with_row_id=True)
        assert list(zip(table["id"].to_pylist(), table["s"].to_pylist(), strict=True)) == rows
        assert ds.count_rows() == len(rows)
        assert ds.count_rows("id > 20 and s is not null") == sum(
            1 for one, text in rows if one > 20 and text is not None
        )
        assert dict(ds.config()) == dict(state.config)
        ids = table["_rowid"].to_pylist()
        assert len(set(ids)) == len(ids)
        if rows:
            picked = [len(rows) - 1, 0, len(rows) // 2]
            assert ds.take(picked)["id"].to_pylist() == [rows[at][0] for at in picked]
            assert ds._take_rows([ids[at] for at in picked])["id"].to_pylist() == [
                rows[at][0] for at in picked
            ]

    def teardown(self) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


class BothMachine(TableMachine):
    """The same commands by pilum and the reference in turns; both must give the answers."""

    engines = (pilum, lance)

    def where(self) -> str:
        self.folder = tempfile.mkdtemp(prefix="model-")
        return f"{self.folder}/t.lance"


TestModel = TableMachine.TestCase
TestModel.settings = RELAXED


if lance is not None:
    TestBothEngines = BothMachine.TestCase
    TestBothEngines.settings = RELAXED
