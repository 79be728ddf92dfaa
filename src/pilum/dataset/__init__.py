"""The dataset that users hold: opening, writing, scanning, taking, searching, deleting, versions, commits.

`core` is the asynchronous implementation, one module for each idea below it: `scanning` and `reading`, `history`
with `references` and `delta`, `configuring`, `upkeep`, `fragments`, `committing`; `writing`, `deleting` and
`inputs` turn what users hand over into files and a commit.  `transactions`, `fragment_metadata`, `index_value` and
`lance_schema` are the values that users hold.  `synchronous` is the door for callers without a loop.
"""
