"""`python -m constrained_nn`."""

from constrained_nn.cli import main

if __name__ == "__main__":
    main()
