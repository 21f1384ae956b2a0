"""The program `keisei`, as `python -m keisei`."""

from keisei.cli import main

if __name__ == "__main__":
    main()
