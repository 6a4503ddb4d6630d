"""Figures and the self-contained HTML page. Given arrays and tables; opens nothing but its own template."""
