OPTIONS = {"width": 8, "blocks": 1, "attention_heads": 2, "texture": 8, "hidden": (12,), "key_stride": 6}
COUNTS = {("published", 4): 12_735_166, ("published", 8): 12_735_166}
TRAINS = True
RATE = 8e-3
STEPS = 100
