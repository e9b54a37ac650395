"""Kill runs at random or chosen moments, start them again, and compare what they leave with unkilled ones.

A server process imports everything once and forks itself for each start (`server`); `start` asks it, or starts real
processes. `works` says what is killed, `record` reads what the starts noted on their way, `trial` does and compares.
"""
