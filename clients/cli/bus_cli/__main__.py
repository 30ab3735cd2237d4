"""`bus` and `python -m bus_cli`."""

import signal


def main() -> None:
    """Run the command line; never returns. Ctrl-C while its modules are still read shows no trace."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from bus_cli.main import main as run

    run()


if __name__ == "__main__":
    main()
