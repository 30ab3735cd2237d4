"""`bus` and `python -m bus_cli`."""

import gc
import signal

GARBAGE = 50_000  # objects that are made before some of them are looked for as garbage: a short command makes fewer


def main() -> None:
    """Run the command line; never returns. Ctrl-C while its modules are still read shows no trace."""
    gc.set_threshold(GARBAGE)  # else a command looks through the modules that it reads, for 7 % of its time
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from bus_cli.main import main as run

    run()


if __name__ == "__main__":
    main()
