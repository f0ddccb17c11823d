"""Graphs to other graphs: float16, int8, standard operators only. Nothing here needs torch."""
