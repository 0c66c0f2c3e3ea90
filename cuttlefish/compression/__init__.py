"""Trained models made small, looked into, saved and shipped."""
