OPTIONS = {"blocks": 1, "layers": 1, "growth": 6, "max_h": 6}
COUNTS = {("published", 2): 1_441_472, ("published", 4): 3_217_504, ("published", 8): 6_331_776}
TRAINS = True
RATE = 1e-2
FLOAT32 = True
