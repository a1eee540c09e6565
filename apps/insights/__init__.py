"""Findings with money and evidence: quota that lies idle, workloads that do nothing, and what acting on them saved."""
