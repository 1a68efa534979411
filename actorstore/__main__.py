"""`python -m actorstore` is `actorstore`."""

import sys

from actorstore.cli import main

if __name__ == "__main__":
    sys.exit(main())
