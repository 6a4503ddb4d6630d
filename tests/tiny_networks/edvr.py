OPTIONS = {"width": 16, "front_blocks": 1, "back_blocks": 1, "deformable_groups": 2, "tail": 16}
COUNTS = {("published", 4): 3_297_825, ("large", 4): 20_630_369}
COUNTED, SECTIONS = 5, 3
STEPS, RATE = 80, 5e-3
TRAINS = True
