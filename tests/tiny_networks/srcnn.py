OPTIONS = {"widths": (16, 8), "kernels": (9, 5, 5)}
COUNTS = {("published", scale): 57_281 for scale in (2, 3, 4, 8, 16)} | {("published_915", 2): 8_129}
TRAINS = True
