OPTIONS = {"width": 10, "units": 2}
COUNTS = {("published", scale): 297_216 for scale in (2, 3, 4, 8, 16)}
TRAINS = True
