OPTIONS = {"width": 10, "blocks": 1, "heads": ()}  # heads of other scales are trained in test_mdsr.py
COUNTS = {("published", 4): 7_951_681, ("published_16", 2): 3_224_897}
TRAINS = True
