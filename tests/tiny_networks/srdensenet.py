OPTIONS = {"blocks": 2, "layers": 2, "growth": 8, "width": 12}
COUNTS = {("published", 4): 2_659_585}
TRAINS = True
RATE = 4e-3
