"""Translates files and streams of any size: `quickstudy translate`.

`stream` translates from standard input to standard output as text comes; `job` translates a file to
a file, in shards, and continues where it was stopped.
"""
