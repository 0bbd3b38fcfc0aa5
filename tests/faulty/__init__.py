"""Exporters that do what real ones do on a bad day. Each runs in a real worker process."""
