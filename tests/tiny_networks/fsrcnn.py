OPTIONS = {"width": 20, "narrow": 8, "mappings": 2}
COUNTS = {("published", scale): 12_809 for scale in (2, 3, 4)}
TRAINS = True
RATE = 1e-2
