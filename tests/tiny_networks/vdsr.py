OPTIONS = {"width": 12, "depth": 4}
COUNTS = {("published", scale): 665_921 for scale in (2, 3, 4, 8, 16)}
TRAINS = True
