OPTIONS = {"width": 12, "blocks": 3}
COUNTS = {("published", 2): 1_367_553, ("published", 4): 1_515_265, ("published", 8): 1_662_977}
COUNTS |= {("published", 3): 1_552_193}  # 64 * 9 * 576 + 576 for the enlargement instead of 64 * 9 * 256 + 256
COUNTS |= {("full", 2): 40_720_385, ("full", 4): 43_080_705, ("full", 8): 45_441_025}
TRAINS = True
