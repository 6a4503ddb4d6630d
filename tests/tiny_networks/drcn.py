OPTIONS = {"width": 8, "recursions": 3}
COUNTS = {("published", scale): 1_775_121 for scale in (2, 3, 4, 8, 16)}
TRAINS = True
