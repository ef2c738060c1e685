"""The entry point of `outreach-migrate` and of `python -m outreach_migrate`."""

import gc


def main() -> None:
    """Run the command line, without the garbage collector, which takes a fifth of a short command's time.

    What is imported stays to the end, and is not to be searched for garbage, neither while it is made nor at exit.
    """
    gc.disable()
    from outreach_migrate import cli
    from outreach_migrate.report import terminal

    terminal.take_over()
    try:
        cli.main()
    except SystemExit as end:
        if unwritten := terminal.lost("stdout"):
            terminal.say(f"error: {unwritten}", err=True)
        raise SystemExit(end.code or int(bool(unwritten or terminal.lost("stderr")))) from None
    finally:
        gc.freeze()


if __name__ == "__main__":
    main()
