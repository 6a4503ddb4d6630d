OPTIONS = {"width": 8, "blocks": 1, "reduction": 4}
COUNTS = {("published", 2): 19_802_131, ("published", 4): 19_949_843}
TRAINS = True
CANCELS = ("attend.k.bias",)  # the same for all keys, so that the softmax does not see it
