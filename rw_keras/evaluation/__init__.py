"""The publication's evaluation from one command: tables, figures and a report. See examples/reproduce_tables.py."""
