"""The dataset that users hold: opening, writing, scanning, taking, searching, deleting, versions.

`core` is the asynchronous implementation, `synchronous` its door for callers without a loop; `inputs` and
`writing` turn what users hand over into data files and a commit, `deleting` rows into deletion files.
"""
