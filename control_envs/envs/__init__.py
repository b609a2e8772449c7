"""Thin Gymnasium shells over tasks."""
