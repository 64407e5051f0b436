"""What ends a house whose own process was killed: it waits for the end of its input, then ends whatever is left.

Started by ``recognition up`` as ``python -m flows.house.caretaker MARK API``; a clean end leaves it nothing to do.
"""

from __future__ import annotations

import signal
import sys

from flows.house.parts import end_all


def main() -> None:
    # only the end of the house ends it
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    house, api = sys.argv[1:]
    sys.stdin.read()
    end_all(house, api, hurried=lambda: False)


if __name__ == "__main__":
    main()
