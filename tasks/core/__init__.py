"""What every stage may lean on: the shape of parameters, errors, measured values and the job. No torch, no files of its own."""
