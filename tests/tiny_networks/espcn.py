OPTIONS: dict[str, object] = {}
COUNTS = {("published", 2): 21_284, ("published", 3): 22_729, ("published", 4): 24_752, ("published", 8): 38_624}
TRAINS = True
