"""Thin connections to training frameworks, each of which must be installed beside cuttlefish."""
