"""`python -m gpu_commons_cli`."""

from gpu_commons_cli.main import main

main()
