"""The content of the paper: its tables and figures (tables.yaml) and its claims (claims.yaml)."""

from pathlib import Path

PAPER = Path(__file__).resolve().parent
CLAIMS, TABLES = "claims.yaml", "tables.yaml"
