"""fastmlp beside its peers: first that all compute the same, then how long each takes.

Run ``python -m bench --help`` from the root of the repository; README.md here tells the rest.
"""
