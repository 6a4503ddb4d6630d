"""`emsr run`: a front of snakemake that keeps others out, cleans up behind the dead, and proves what was made."""
