OPTIONS = {"width": 12, "blocks": 2, "layers": 2, "growth": 8}
COUNTS = {("published", 2): 22_121_089, ("published", 4): 22_268_801}
COUNTS |= {("published_a", 2): 5_540_065, ("published_a", 4): 5_577_057}
TRAINS = True
