"""The colours of every plot and page: a class has one colour everywhere."""

CLASS_COLORS = {"SELL": "#1f5fbf", "HOLD": "#8a8f98", "BUY": "#d1363a"}
"""Korean convention: what rises is red, what falls is blue."""

MODEL_COLORS = ("#7a4fb5", "#e0a100", "#2f8f5b", "#00808f", "#d16ba5", "#8c564b")  # none is a class's
TRAIN_COLOR, VAL_COLOR, MARK_COLOR = "#8a8f98", "#2f8f5b", "#d1363a"
GRID_COLOR = "#e8eaed"
