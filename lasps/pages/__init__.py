"""Pages for people: one template, one style, tables that sort, charts that tell their values; frames in, HTML out."""

from lasps.pages.page import Cell, Column, Figure, Table, make_table, render

__all__ = ["Cell", "Column", "Figure", "Table", "make_table", "render"]
