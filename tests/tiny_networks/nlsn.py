OPTIONS = {"width": 8, "blocks": 2, "every": 3, "chunk": 144, "hashes": 1}
COUNTS = {("published", 2): 41_786_945, ("published", 4): 44_147_265, ("lite", 2): 1_407_729}
TRAINS = True
RATE = 8e-3
