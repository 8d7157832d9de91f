"""What a net is worth: quality per utterance, totals of cost, tables, figures, reports.

Nothing is imported here: metric workers import this package and must start without JAX.
"""
