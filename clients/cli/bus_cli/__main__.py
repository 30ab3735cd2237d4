"""`bus` and `python -m bus_cli`."""

import gc
import signal

GARBAGE = 50_000  # objects that may have become some, before it is looked for: as many as a short command makes


def main() -> None:
    """Run the command line; never returns. Ctrl-C while its modules are still read shows no trace."""
    gc.set_threshold(GARBAGE)  # a tenth of a command's time would go into looking, while modules are read
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from bus_cli.main import main as run

    run()


if __name__ == "__main__":
    main()
