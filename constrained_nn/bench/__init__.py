"""Workloads, rivals and tables of speed."""
