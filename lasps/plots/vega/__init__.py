"""Interactive plots of pages: frames in, Vega-Lite specifications out."""
