"""Whether a server answers, for health checks in images that hold no curl: ``python deployment/answers.py URL``."""

from __future__ import annotations

import sys
from urllib.request import urlopen

with urlopen(sys.argv[1], timeout=5) as answer:
    print(answer.status)
