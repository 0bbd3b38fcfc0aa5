"""One file a runtime: how the lowered network becomes what the runtime reads. Backends, see ``edge.backends``.

They run in the environment ``bench``, and make float32 artifacts.
"""
