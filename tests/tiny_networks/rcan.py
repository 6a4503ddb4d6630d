OPTIONS = {"width": 12, "groups": 1, "blocks": 2, "reduction": 4}
# 24 fewer than counted in the reference, which has the shift of the mean of three colours twice
COUNTS = {("published", 2): 15_442_361 - 24, ("published", 4): 15_590_073 - 24, ("published", 8): 15_737_785 - 24}
TRAINS = True
