"""What the tests measure the project against, written without it: events, expected values, a server.

Nothing in here imports np6_assets: a mistake in it must not be able to hide in what it is compared with.
"""
