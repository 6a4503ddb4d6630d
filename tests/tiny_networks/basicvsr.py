OPTIONS = {"width": 10, "blocks": 1, "tail": 10, "flow_levels": 2, "flow_widths": (6,), "flow_kernel": 3}
COUNTS = {("published", 4): 6_287_853}
SECTIONS = 3
STEPS, RATE = 100, 5e-3
TRAINS = True
