"""`python -m actcc`."""

from actcc.cli import main

main()
