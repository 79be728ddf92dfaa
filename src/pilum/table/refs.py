"""Tags and branches as values and JSON (spec/table.md, sections 13.1 and 13.2).  Pure.

    _refs/tags/{tag}.json                     a name for one version
    _refs/branches/{name, / as %2F}.json      where a branch began
    tree/{branch}/                            the folder of a branch: a table of its own

All of them lie below the folder of the main branch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pilum.errors import CorruptFileError, InvalidInputError

__all__ = [
    "BRANCHES",
    "MAIN",
    "TAGS",
    "TREE",
    "Branch",
    "Tag",
    "branch_folder",
    "branch_path",
    "check_branch_name",
    "check_tag_name",
    "decode_branch",
    "decode_tag",
    "encode_branch",
    "encode_tag",
    "tag_path",
]

TAGS = "_refs/tags"
BRANCHES = "_refs/branches"
TREE = "tree"
MAIN = "main"

_NANOSECONDS = 1_000_000_000
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class Tag:
    """A name for a version.

    Attributes:
        branch: branch of the version, None for main.
        version: its number.
        manifest_size: bytes of its manifest.
        created_at_ns: when the tag was made, nanoseconds since the epoch; None when that is not recorded.
        updated_at_ns: when it was last moved.
        metadata: free entries.
    """

    branch: str | None
    version: int
    manifest_size: int = 0
    created_at_ns: int | None = None
    updated_at_ns: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Branch:
    """Where a branch began.

    Attributes:
        parent_branch: branch it was made from, None for main.
        parent_version: version it was made from; its first own version has the same number.
        lineage: for this branch and those above it, outermost first: the version left and a random id.  A
            branch made from this one continues the list.
        created_at: seconds since the epoch.
        manifest_size: bytes of the first manifest.
        metadata: free entries.
    """

    parent_branch: str | None
    parent_version: int
    lineage: tuple[tuple[int, str], ...] = ()
    created_at: int = 0
    manifest_size: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def descends_from(self, other: Branch) -> bool:
        """Whether this branch was made from the other one, directly or not."""
        depth = len(other.lineage)
        return depth > 0 and len(self.lineage) > depth and self.lineage[:depth] == other.lineage


# -- names and paths -----------------------------------------------------------------------------------


def _is_plain(name: str) -> bool:
    return all(one.isalnum() or one in ".-_" for one in name)


def check_tag_name(name: str) -> None:
    """Refuse a name that no tag can have.

    Raises:
        InvalidInputError: it is empty, has other characters than letters, digits, ``.``, ``-``, ``_``, begins
            or ends with a dot, has two dots in a row, or ends in ``.lock``.
    """
    if not name or not _is_plain(name):
        raise InvalidInputError(f"tag name {name!r}: a name has letters, digits, '.', '-' and '_'")
    if name.startswith(".") or name.endswith((".", ".lock")) or ".." in name:
        raise InvalidInputError(
            f"tag name {name!r}: a name does not begin or end with a dot, has no '..' and no ending '.lock'"
        )


def check_branch_name(name: str) -> None:
    """Refuse a name that no branch can have.

    Raises:
        InvalidInputError: a segment between slashes is empty or has other characters than letters, digits,
            ``.``, ``-``, ``_``; it contains ``..``, ends in ``.lock``, or is ``main``.
    """
    if name == MAIN:
        raise InvalidInputError("branch name 'main' is that of the main branch")
    if not name or not all(segment and _is_plain(segment) for segment in name.split("/")):
        raise InvalidInputError(
            f"branch name {name!r}: names are segments of letters, digits, '.', '-' and '_' between slashes"
        )
    if ".." in name or name.endswith(".lock") or "." in name.split("/"):
        raise InvalidInputError(f"branch name {name!r}: a name has no '..' and no ending '.lock'")


def tag_path(name: str) -> str:
    """Key of the file of a tag."""
    return f"{TAGS}/{name}.json"


def branch_path(name: str) -> str:
    """Key of the descriptor of a branch."""
    return f"{BRANCHES}/{name.replace('/', '%2F')}.json"


def branch_folder(name: str | None) -> str:
    """Folder of a branch below that of main, for which it is empty."""
    return "" if name is None or name == MAIN else f"{TREE}/{name}"


# -- JSON ----------------------------------------------------------------------------------------------


def encode_tag(tag: Tag) -> bytes:
    """The file of a tag."""
    values: dict[str, Any] = {"branch": tag.branch, "version": tag.version}
    if tag.created_at_ns is not None:
        values["createdAt"] = _format_time(tag.created_at_ns)
    if tag.updated_at_ns is not None:
        values["updatedAt"] = _format_time(tag.updated_at_ns)
    values |= {"manifestSize": tag.manifest_size, "metadata": dict(tag.metadata)}
    return json.dumps(values, indent=2, ensure_ascii=False).encode()


def decode_tag(data: bytes, where: str) -> Tag:
    """The value of a tag file.

    Raises:
        CorruptFileError: it is not one.
    """
    values = _parse(data, where)
    return Tag(
        branch=_optional_text(values, "branch", where),
        version=_number(values, "version", where),
        manifest_size=_number(values, "manifestSize", where, default=0),
        created_at_ns=_time(values, "createdAt", where),
        updated_at_ns=_time(values, "updatedAt", where),
        metadata=_mapping(values, where),
    )


def encode_branch(branch: Branch) -> bytes:
    """The descriptor file of a branch."""
    values = {
        "parentBranch": branch.parent_branch,
        "identifier": {"version_mapping": [list(one) for one in branch.lineage]},
        "parentVersion": branch.parent_version,
        "createAt": branch.created_at,
        "manifestSize": branch.manifest_size,
        "metadata": dict(branch.metadata),
    }
    return json.dumps(values, indent=2, ensure_ascii=False).encode()


def decode_branch(data: bytes, where: str) -> Branch:
    """The value of a branch descriptor.

    A file of an old release without identifier gets a lineage of its own, made from what it says.

    Raises:
        CorruptFileError: it is not one.
    """
    values = _parse(data, where)
    version = _number(values, "parentVersion", where)
    identifier = values.get("identifier")
    if identifier is None:
        lineage: tuple[tuple[int, str], ...] = (
            (version, f"{_number(values, 'createAt', where, default=0):032x}"),
        )
    else:
        try:
            lineage = tuple([(int(left), str(uuid)) for left, uuid in identifier["version_mapping"]])
        except (TypeError, ValueError, KeyError):
            raise CorruptFileError(f"{where}: the identifier of the branch is {identifier!r}") from None
    return Branch(
        parent_branch=_optional_text(values, "parentBranch", where),
        parent_version=version,
        lineage=lineage,
        created_at=_number(values, "createAt", where, default=0),
        manifest_size=_number(values, "manifestSize", where, default=0),
        metadata=_mapping(values, where),
    )


def _parse(data: bytes, where: str) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise CorruptFileError(f"{where}: expected a JSON object")
    return values


def _number(values: Mapping[str, Any], key: str, where: str, default: int | None = None) -> int:
    value = values.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise CorruptFileError(f"{where}: {key} is {value!r}, expected a number")
    return value


def _optional_text(values: Mapping[str, Any], key: str, where: str) -> str | None:
    value = values.get(key)
    if value is not None and not isinstance(value, str):
        raise CorruptFileError(f"{where}: {key} is {value!r}, expected a string")
    return value


def _mapping(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    value = values.get("metadata")
    if value is not None and not isinstance(value, dict):
        raise CorruptFileError(f"{where}: metadata is {value!r}, expected an object")
    return value or {}


def _time(values: Mapping[str, Any], key: str, where: str) -> int | None:
    text = _optional_text(values, key, where)
    if text is None:
        return None
    found = _TIME.fullmatch(text)
    try:
        if found is None:
            raise ValueError(text)
        moment = datetime.fromisoformat(found[1] + found[3])
    except ValueError:
        raise CorruptFileError(f"{where}: {key} is {text!r}, expected a time") from None
    return int(moment.timestamp()) * _NANOSECONDS + int((found[2] or "0").ljust(9, "0"))


def _format_time(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, _NANOSECONDS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
