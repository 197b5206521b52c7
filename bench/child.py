"""The program of a client's process: `python -m bench.child DESCRIPTOR`, started by `bench.children.Child`."""

import sys

from bench.children import serve

if __name__ == "__main__":
    serve(int(sys.argv[1]))
