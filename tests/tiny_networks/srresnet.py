OPTIONS = {"width": 10, "blocks": 1}
COUNTS = {("published", 2): 1_378_899, ("published", 4): 1_526_612, ("published", 8): 1_674_325}
COUNTS |= {("published_plain", 2): 1_378_899 + 33 * 64 - 33 * 128}  # biases for what normalises
TRAINS = True
