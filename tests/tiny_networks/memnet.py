OPTIONS = {"width": 8, "blocks": 2, "recursions": 2}
COUNTS: dict[tuple[str, int], int] = {}  # apart from what normalises, in test_memnet.py
TRAINS = True
