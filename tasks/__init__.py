"""How: one package per stage, pure functions from declared inputs to a declared output.

A stage is `tasks/<stage>/run.py` with one function

    def run(params: Stage, *, <declared inputs>, out: Path, job: Job) -> Metrics

Every input is declared in `dvc.yaml` and arrives as a keyword argument: a dep `artifacts/data` as `data`, a templated dep
`${data.source}` as `source`, a param outside the stage's own block (`seed`, `evaluate`) under its own name. A stage writes
only under `out` (and, to survive a kill, `job.work`) and returns values of the ledger's vocabulary. It knows nothing of
Prefect, DVC, MLflow or any other stage.
"""
