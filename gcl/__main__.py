"""`python -m gcl`: the console script."""

from gcl.cli import main

if __name__ == "__main__":
    main()
