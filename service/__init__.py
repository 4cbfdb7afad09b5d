"""Atelier's server: trained vision models behind HTTP endpoints."""

__version__ = "0.1.0"
