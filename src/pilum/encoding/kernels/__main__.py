"""``python -m pilum.encoding.kernels``: compile every kernel now, so that no process has to (a minute at most, once)."""

from pilum.encoding import kernels

if __name__ == "__main__":
    done = kernels.preload()
    print("All kernels are compiled." if done else "Not all kernels could be compiled: NumPy serves instead.")
