"""`python evaluate.py run=outputs/…` or `python evaluate.py data=… model=…`: a run or a model -> tables."""

import sys

from gcl.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
