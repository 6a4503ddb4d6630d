from dataclasses import asdict

from network_goldens import TINY

OPTIONS = asdict(TINY)
COUNTS: dict[tuple[str, int], int] = {}  # stage by stage in test_golden_published.py
TRAINS = False  # stage by stage in test_training.py; which parameters move: test_gpemsr.py
LAST_STAGE = True
MULTIPLE = 4
