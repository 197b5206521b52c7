"""`python -m compiled` builds."""

from compiled.build import main

main()
