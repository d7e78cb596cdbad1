"""`leanlm compare`: one stage with many methods on the same base, data and budget.

points: who is compared; budgets: what each may take; bench: where each runs; running: all of them; record: what is kept;
table, text, page, plots, published: what is shown.
"""
