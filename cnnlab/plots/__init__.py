"""Plotly figures and pictures of records and maps. No widgets, no torch."""
