"""Machine code of the kernels, kept on disk and used without the compiler that made it.

    signature   what a kernel takes and returns, in our notation
    source      what is compiled, and the key that tells whether it has changed
    compiler    Numba's compiled function, with an entry in front, as one object file     (imports Numba)
    entry       the entry: a C function that Python calls like a built-in one             (imports Numba)
    image       an object file made ready to be copied into memory
    code        what is kept of a kernel
    symbols     addresses of what it calls
    loader      an image, or an object file, made a Python function
    cache       the files

Importing Numba takes 0.2 s and 70 MiB, and with some kernels loaded from its own cache 0.6 s and 150 MiB.  The code
it makes needs nothing of it.  An image is one piece of bytes and some addresses to fill in: reading, copying and
making it executable takes 0.2 ms.  When to do that is decided in `pilum.jit`.
"""
