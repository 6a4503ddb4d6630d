OPTIONS = {"width": 10, "blocks": 1, "hidden": (24,)}
COUNTS = {("published", 2): 1_565_633, ("published", 16): 1_565_633, ("swinir", 4): 11_946_173}
TRAINS = True
RATE = 8e-3
STEPS = 200
