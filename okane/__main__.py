"""`python -m okane` is `okane`."""

from okane.cli import main

if __name__ == "__main__":
    main()
