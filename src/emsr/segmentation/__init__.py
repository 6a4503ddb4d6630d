"""From affinities to segments: fragments on a fixed block grid, their region graph, its agglomeration, a lookup table.

Pure functions on arrays; nothing here opens a file. Affinities are uint8 (3, z, y, x), channels z y x, 255 = 1.0, and
affinity [d][p] is the edge from voxel p to its lower neighbour along d. Ids are uint64, 0 is background.
"""
