OPTIONS = {"width": 8, "blocks": 1, "texture": 12, "hidden": (24,)}
COUNTS = {("published", 2): 1_712_577, ("published", 16): 1_712_577, ("swinir", 4): 12_093_117}
TRAINS = True
RATE = 8e-3
STEPS = 100
