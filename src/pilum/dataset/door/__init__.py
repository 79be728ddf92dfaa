"""The synchronous door, room by room; `pilum.dataset.synchronous` puts it together.

Every method hands the coroutine of its asynchronous twin to `pilum.io.run`: a method here is its signature, its
documentation and one line.
"""
