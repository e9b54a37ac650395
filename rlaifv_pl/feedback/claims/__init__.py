"""Splitters: from a free-text answer to claims that can be checked one by one."""
