OPTIONS = {"width": 8, "blocks": 1, "discriminator_channels": (4, 4), "discriminator_features": 4}
COUNTS = {("published", 2): 1_378_899, ("published", 4): 1_526_612, ("published", 8): 1_674_325}
TRAINS = True
