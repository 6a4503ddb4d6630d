OPTIONS: dict[str, object] = {}
COUNTS = {("published", 4): 0}
TRAINS = False
