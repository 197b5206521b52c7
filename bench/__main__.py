"""`python -m bench`. Processes of clients load this module too: so it loads nothing unless it is the program."""

if __name__ == "__main__":
    from bench.cli import main

    main(prog_name="python -m bench")
