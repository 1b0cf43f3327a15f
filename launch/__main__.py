"""`python -m launch` is `osim`, for places where the console script is not on the path."""

from launch.cli import main

if __name__ == "__main__":
    main()
