"""`python train.py data=my_catalog model=ecommerce-B`: compose config, build, fit, evaluate, report."""

import sys

from gcl.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
