"""One file an artifact family: how the lowered program becomes files.

A backend is a module with two functions:

``prepare(job: EmitJob) -> Any``
    what all precisions share (load the program, convert it once).
``emit(job: EmitJob, prepared: Any, precision: str) -> list[EmittedFile]``
    writes the files of one precision into ``job.folder``.

Both run in a worker process, in the environment the table of formats names, and may raise or die: the parent reports
it.
"""
