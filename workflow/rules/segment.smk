# Affinities, fragments and agglomeration: their place; there is no rule yet.
