"""What a measurement says: numbers, rows of layers, the graph of layers, comparisons."""
