"""How hard sets of faces are, how general, and how alike."""
